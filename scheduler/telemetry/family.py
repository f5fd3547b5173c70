"""The kinds of metrics: what each is called, its labels, what it means, and how it is read from the state."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from scheduler.core.settings import CoreSettings
from scheduler.core.snapshot import Snapshot
from scheduler.telemetry.histogram import Histogram
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.process import ProcessWatch
from scheduler.telemetry.recorder import Recorder


@dataclass(frozen=True, slots=True)
class State:
    """All that metrics are read from."""

    snapshot: Snapshot
    settings: CoreSettings
    recorder: Recorder
    process: ProcessWatch

    @property
    def measures(self) -> Measures:
        """What is counted."""
        return self.recorder.measures


Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]
Histograms = Iterable[tuple[Labels, Histogram]]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value that goes up and down."""

    kind: ClassVar[str] = "gauge"

    name: str
    labels: Labels
    meaning: str
    read: Callable[[State], Samples]

    @property
    def published(self) -> str:
        """The name as Prometheus shows it."""
        return self.name

    def family(self, state: State) -> Metric:
        """The present values."""
        family = GaugeMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, value in self.read(state):
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True, slots=True)
class Counter:
    """A value that only grows."""

    kind: ClassVar[str] = "counter"

    name: str
    labels: Labels
    meaning: str
    read: Callable[[State], Samples]

    @property
    def published(self) -> str:
        """The name as Prometheus shows it."""
        return f"{self.name}_total"

    def family(self, state: State) -> Metric:
        """The present values."""
        family = CounterMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, value in self.read(state):
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram; of its bounds every so manieth is published."""

    kind: ClassVar[str] = "histogram"

    name: str
    labels: Labels
    meaning: str
    read: Callable[[State], Histograms]
    every: int = 1

    @property
    def published(self) -> str:
        """The name as Prometheus shows it, before `_bucket`, `_sum` and `_count`."""
        return self.name

    def family(self, state: State) -> Metric:
        """The present counts."""
        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, histogram in self.read(state):
            family.add_metric(labels, histogram.cumulative(self.every), histogram.total)
        return family


Family = Gauge | Counter | Distribution
