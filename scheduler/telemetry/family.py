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
class _Metric:
    """What every kind has."""

    name: str
    labels: Labels
    meaning: str

    @property
    def published(self) -> str:
        """The name as Prometheus shows it; of a histogram before `_bucket`, `_sum` and `_count`."""
        return self.name


@dataclass(frozen=True, slots=True)
class _Value(_Metric):
    """A metric that has one value for each set of labels."""

    of_prometheus: ClassVar[type[GaugeMetricFamily | CounterMetricFamily]]

    read: Callable[[State], Samples]

    def family(self, state: State) -> Metric:
        """The present values."""
        family = self.of_prometheus(self.name, self.meaning, labels=self.labels)
        for labels, value in self.read(state):
            family.add_metric(labels, value)
        return family


class Gauge(_Value):
    """A value that goes up and down."""

    kind: ClassVar[str] = "gauge"
    of_prometheus = GaugeMetricFamily


class Counter(_Value):
    """A value that only grows."""

    kind: ClassVar[str] = "counter"
    of_prometheus = CounterMetricFamily

    @property
    def published(self) -> str:
        """The name as Prometheus shows it."""
        return f"{self.name}_total"


@dataclass(frozen=True, slots=True)
class Distribution(_Metric):
    """A histogram; of its bounds every so manieth is published."""

    kind: ClassVar[str] = "histogram"

    read: Callable[[State], Histograms]
    every: int = 1

    def family(self, state: State) -> Metric:
        """The present counts."""
        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, histogram in self.read(state):
            family.add_metric(labels, histogram.cumulative(self.every), histogram.total)
        return family


Family = Gauge | Counter | Distribution
