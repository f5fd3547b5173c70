"""/metrics: every metric in one table, read when Prometheus asks.

Nothing is kept here: gauges are read from the core's snapshot, counts from `Measures` and `ProcessWatch`. The table is
also what docs/metrics.md is written from (`python -m scheduler.telemetry.metrics > docs/metrics.md`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.core.settings import CoreSettings
from scheduler.core.snapshot import Snapshot
from scheduler.telemetry.histogram import Histogram
from scheduler.telemetry.process import ProcessWatch
from scheduler.telemetry.recorder import Recorder
from scheduler.telemetry.tenants import OTHER

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class State:
    """All that metrics are read from."""

    snapshot: Snapshot
    settings: CoreSettings
    recorder: Recorder
    process: ProcessWatch


Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]
Histograms = Iterable[tuple[Labels, Histogram]]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric: name, labels, meaning, and how it is read."""

    name: str
    labels: Labels
    meaning: str


@dataclass(frozen=True, slots=True)
class Gauge(Row):
    """A value that goes up and down."""

    read: Callable[[State], Samples]

    def family(self, state: State) -> Metric:
        """The present values."""
        family = GaugeMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, value in self.read(state):
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True, slots=True)
class Counter(Row):
    """A value that only grows."""

    read: Callable[[State], Samples]

    def family(self, state: State) -> Metric:
        """The present values."""
        family = CounterMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, value in self.read(state):
            family.add_metric(labels, value)
        return family


@dataclass(frozen=True, slots=True)
class Distribution(Row):
    """A histogram; of its bounds every so manieth is published."""

    read: Callable[[State], Histograms]
    every: int = 1

    def family(self, state: State) -> Metric:
        """The present counts."""
        family = HistogramMetricFamily(self.name, self.meaning, labels=self.labels)
        for labels, histogram in self.read(state):
            family.add_metric(labels, histogram.cumulative(self.every), histogram.total)
        return family


def _tenant_gauge(state: State, field: str) -> Iterator[tuple[Labels, float]]:
    """One value for each labelled tenant, and the sum of the others."""
    labelled = dict.fromkeys(state.recorder.measures.tenants.labels(), 0)
    other = 0
    for tenant in state.snapshot.tenants:
        value = getattr(tenant, field)
        if tenant.name in labelled:
            labelled[tenant.name] = value
        else:
            other += value
    yield from (((name,), value) for name, value in labelled.items())
    yield (OTHER,), other


METRICS: Final[tuple[Gauge | Counter | Distribution, ...]] = (
    Distribution(
        "fairlane_request_duration_seconds",
        ("class", "model", "outcome"),
        "From a request's arrival to its answer or refusal.",
        lambda s: (
            ((name, model, outcome.value), each.total)
            for (name, model, outcome), each in s.recorder.measures.requests.items()
        ),
        every=2,
    ),
    Distribution(
        "fairlane_queue_duration_seconds",
        ("class", "model", "outcome"),
        "The part of it that was spent in the queue.",
        lambda s: (
            ((name, model, outcome.value), each.waited)
            for (name, model, outcome), each in s.recorder.measures.requests.items()
        ),
        every=2,
    ),
    Counter(
        "fairlane_requests",
        ("class", "tenant", "model", "outcome"),
        "Requests that ended. A tenant that has no label of its own is `other`.",
        lambda s: ((key, count[0]) for key, count in s.recorder.measures.tenants.ended_counts.items()),
    ),
    Counter(
        "fairlane_queue_seconds",
        ("class", "tenant", "model", "outcome"),
        "Seconds that these requests spent in the queue, together.",
        lambda s: ((key, count[1]) for key, count in s.recorder.measures.tenants.ended_counts.items()),
    ),
    Counter(
        "fairlane_service_seconds",
        ("class", "tenant", "model"),
        "Seconds of an instance's time that requests took: their rows' part of each batch. What shares are shares of.",
        lambda s: s.recorder.measures.tenants.service_counts.items(),
    ),
    Counter(
        "fairlane_invalid_requests",
        ("reason",),
        "Requests refused before they were queued, for a reason of their own.",
        lambda s: (((reason,), count) for reason, count in s.recorder.measures.invalid.items()),
    ),
    Counter(
        "fairlane_retries",
        ("model",),
        "Second tries of requests whose batch had failed.",
        lambda s: (((model,), count) for model, count in s.recorder.measures.retries.items()),
    ),
    Gauge(
        "fairlane_queue_depth",
        ("class", "model"),
        "Requests that wait.",
        lambda s: (
            ((name, model.name), queued) for model in s.snapshot.models for name, queued in model.queued.items()
        ),
    ),
    Gauge(
        "fairlane_queue_limit",
        ("class",),
        "Requests of the class that may wait.",
        lambda s: (((each.name,), each.max_queued) for each in s.settings.classes),
    ),
    Gauge("fairlane_queue_bytes", (), "Bytes of waiting tensors.", lambda s: [((), s.snapshot.queue_bytes)]),
    Gauge(
        "fairlane_queue_bytes_limit", (), "Bytes of tensors that may wait.", lambda s: [((), s.settings.queue_bytes)]
    ),
    Gauge("fairlane_in_flight", (), "Requests at the backends.", lambda s: [((), s.snapshot.in_flight)]),
    Gauge("fairlane_tenant_queued", ("tenant",), "Requests that wait.", lambda s: _tenant_gauge(s, "queued")),
    Gauge(
        "fairlane_tenant_in_flight", ("tenant",), "Requests at the backends.", lambda s: _tenant_gauge(s, "in_flight")
    ),
    Gauge(
        "fairlane_tenants",
        (),
        "Tenants that have something queued or in flight.",
        lambda s: [((), len(s.snapshot.tenants))],
    ),
    Gauge(
        "fairlane_pushback_seconds",
        ("class",),
        "After how long a refused request is told to come again, before jitter.",
        lambda s: (((each.name,), each.pushback_s) for each in s.snapshot.classes),
    ),
    Counter(
        "fairlane_batches",
        ("backend", "model", "verdict"),
        "Batches that ended, by how: `succeeded`, `failed` (answered with an error), `garbled` (not what was asked), "
        "`unavailable` (not served now), `lost` (no answer), `abandoned` (by this side).",
        lambda s: (
            ((backend, model, verdict.value), count)
            for (backend, model), each in s.recorder.measures.batches.items()
            for verdict, count in each.verdicts.items()
        ),
    ),
    Distribution(
        "fairlane_batch_rows",
        ("backend", "model"),
        "Rows of a batch.",
        lambda s: ((key, each.rows) for key, each in s.recorder.measures.batches.items()),
    ),
    Counter(
        "fairlane_batch_requests",
        ("backend", "model"),
        "Requests that rode in batches.",
        lambda s: ((key, each.requests) for key, each in s.recorder.measures.batches.items()),
    ),
    Distribution(
        "fairlane_batch_duration_seconds",
        ("backend", "model"),
        "A batch's time at an instance, the wait for an instance taken off.",
        lambda s: ((key, each.service) for key, each in s.recorder.measures.batches.items()),
        every=2,
    ),
    Counter(
        "fairlane_batch_estimate_seconds",
        ("backend", "model"),
        "What the batches that succeeded were expected to take, together.",
        lambda s: ((key, each.estimated_s) for key, each in s.recorder.measures.batches.items()),
    ),
    Distribution(
        "fairlane_batch_estimate_ratio",
        ("backend", "model"),
        "Actual through expected duration of a batch; 1 is right.",
        lambda s: ((key, each.ratio) for key, each in s.recorder.measures.batches.items()),
    ),
    Gauge(
        "fairlane_batches_in_flight",
        ("backend", "model"),
        "Batches at the backend.",
        lambda s: (
            ((backend.name, model), count)
            for backend in s.snapshot.backends
            for model, count in backend.in_flight.items()
        ),
    ),
    Gauge(
        "fairlane_instances",
        ("backend", "model"),
        "Batches that the backend can run at a time.",
        lambda s: (
            ((name, model), capacity.instances)
            for name, state in s.recorder.backends.items()
            for model, capacity in state.models.items()
        ),
    ),
    Gauge(
        "fairlane_backend_ready",
        ("backend",),
        "1 while the backend is ready, else 0.",
        lambda s: (((each.name,), float(each.ready)) for each in s.snapshot.backends),
    ),
    Gauge(
        "fairlane_breaker_state",
        ("backend", "model", "state"),
        "1 for a circuit breaker that is `open` or `half_open`, or `closed` after failures; none for what answers.",
        lambda s: (
            ((backend.name, model, breaker.state), 1)
            for backend in s.snapshot.backends
            for model, breaker in backend.breakers.items()
        ),
    ),
    Gauge(
        "fairlane_backend_work_seconds",
        ("backend",),
        "Expected seconds of service in flight.",
        lambda s: (((each.name,), each.work_s) for each in s.snapshot.backends),
    ),
    Distribution(
        "fairlane_event_loop_lag_seconds",
        (),
        "How late the event loop woke, ten times a second.",
        lambda s: [((), s.process.loop_lag)],
        every=2,
    ),
    Distribution(
        "fairlane_gc_pause_seconds",
        (),
        "How long each run of the garbage collector took; nothing else runs meanwhile.",
        lambda s: [((), s.process.gc_pause)],
        every=2,
    ),
)


class Metrics(Collector):
    """The exposition of METRICS, beside prometheus_client's `process_*` (CPU, memory, descriptors)."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def collect(self) -> Iterable[Metric]:
        """All families, read from one state."""
        state = self._state()
        return [metric.family(state) for metric in METRICS]

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not read the state."""
        return ()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


def published_name(metric: Gauge | Counter | Distribution) -> str:
    """The name as Prometheus shows it: counters end in `_total`."""
    return f"{metric.name}_total" if isinstance(metric, Counter) else metric.name


KINDS: Final = {Gauge: "gauge", Counter: "counter", Distribution: "histogram"}

INTRODUCTION: Final = """# Metrics

`GET /metrics` on the HTTP side, in Prometheus' text format. This page is written by
`python -m scheduler.telemetry.metrics`.

Durations have buckets from 0.1 ms to 63 s, five a decade (Renard's R5 series: 1, 1.6, 2.5, 4, 6.3). Besides these
metrics there are prometheus_client's `process_*`: CPU, memory, file descriptors. Scheduler CPU a request is
`rate(process_cpu_seconds_total[1m]) / sum(rate(fairlane_requests_total[1m]))`.

The label `tenant` is bounded: the `telemetry.tenants` tenants with the most traffic have a label of their own, all
others are `other`. A tenant takes over a label only from one with less than half its traffic, and what it sent
before stays under `other`. For that reason histograms have no tenant: a tenant's mean wait is
`rate(fairlane_queue_seconds_total[1m]) / rate(fairlane_requests_total[1m])`.

Outcomes are those of docs/protocol.md in small letters, and `completed`, `failed` (by the backend) and `cancelled`
(by the caller).

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def document() -> str:
    """docs/metrics.md."""
    rows = (
        f"| `{published_name(each)}` | {KINDS[type(each)]} | {', '.join(each.labels) or 'none'} | {each.meaning} |\n"
        for each in METRICS
    )
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    print(document(), end="")
