"""Every metric there is, by what it is of; docs/reference/metrics.md is written from this table.

Nothing is kept here: gauges are read from the core's snapshot, counts from `Measures` and `ProcessWatch`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from scheduler.core.snapshot import BackendSnapshot, TenantSnapshot
from scheduler.telemetry.family import Counter, Distribution, Family, Gauge, Histograms, Labels, Samples, State
from scheduler.telemetry.histogram import Histogram
from scheduler.telemetry.measures import BatchSeries, RequestSeries
from scheduler.telemetry.tenants import OTHER
from scheduler.version import VERSION


def _single(read: Callable[[State], Any]) -> Callable[[State], Iterable[tuple[Labels, Any]]]:
    """One value, without labels."""
    return lambda state: [((), read(state))]


def _requests(read: Callable[[RequestSeries], Histogram]) -> Callable[[State], Histograms]:
    return lambda state: (
        ((name, model, outcome.value), read(each)) for (name, model, outcome), each in state.measures.requests.items()
    )


def _tenants(read: Callable[[TenantSnapshot], int]) -> Callable[[State], Samples]:
    """One value for each labelled tenant, and the sum of the others."""

    def samples(state: State) -> Iterator[tuple[Labels, float]]:
        values = dict.fromkeys(state.measures.tenants.labels(), 0) | {OTHER: 0}
        for tenant in state.snapshot.tenants:
            values[tenant.name if tenant.name in values else OTHER] += read(tenant)
        return (((name,), value) for name, value in values.items())

    return samples


def _batches(read: Callable[[BatchSeries], Any]) -> Callable[[State], Iterable[tuple[Labels, Any]]]:
    return lambda state: ((key, read(each)) for key, each in state.measures.batches.items())


def _backends(read: Callable[[BackendSnapshot], float]) -> Callable[[State], Samples]:
    return lambda state: (((each.name,), read(each)) for each in state.snapshot.backends)


REQUESTS: Final[tuple[Family, ...]] = (
    Distribution(
        "fairlane_request_duration_seconds",
        ("class", "model", "outcome"),
        "From a request's arrival to its answer or refusal.",
        _requests(lambda series: series.total),
        every=2,
    ),
    Distribution(
        "fairlane_queue_duration_seconds",
        ("class", "model", "outcome"),
        "The part of it that was spent in the queue.",
        _requests(lambda series: series.waited),
        every=2,
    ),
    Distribution(
        "fairlane_first_response_seconds",
        ("class", "model"),
        "From the arrival of a request to a decoupled model to its first response (of a language model: time to first "
        "token). A request that ends without one is not counted.",
        lambda s: s.measures.first_responses.items(),
        every=2,
    ),
    Counter(
        "fairlane_requests",
        ("class", "tenant", "model", "outcome"),
        "Requests that ended. A tenant that has no label of its own is `other`.",
        lambda s: ((key, count[0]) for key, count in s.measures.tenants.ended_counts.items()),
    ),
    Counter(
        "fairlane_queue_seconds",
        ("class", "tenant", "model", "outcome"),
        "Seconds that these requests spent in the queue, together.",
        lambda s: ((key, count[1]) for key, count in s.measures.tenants.ended_counts.items()),
    ),
    Counter(
        "fairlane_service_seconds",
        ("class", "tenant", "model"),
        "Seconds of an instance's time that requests took: their rows' part of each batch. What shares are shares of.",
        lambda s: s.measures.tenants.service_counts.items(),
    ),
    Counter(
        "fairlane_invalid_requests",
        ("reason",),
        "Requests refused before they were queued, for a reason of their own.",
        lambda s: (((reason,), count) for reason, count in s.measures.invalid.items()),
    ),
    Counter(
        "fairlane_retries",
        ("model",),
        "Second tries of requests whose batch had failed.",
        lambda s: (((model,), count) for model, count in s.measures.retries.items()),
    ),
)

QUEUES: Final[tuple[Family, ...]] = (
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
    Gauge(
        "fairlane_queue_bytes",
        ("class",),
        "Bytes of waiting tensors.",
        lambda s: (((each.name,), each.queue_bytes) for each in s.snapshot.classes),
    ),
    Gauge(
        "fairlane_queue_bytes_limit",
        (),
        "Bytes of tensors that may wait, of all classes together.",
        _single(lambda s: s.settings.queue_bytes),
    ),
    Gauge(
        "fairlane_in_flight",
        ("class", "model"),
        "Requests at the backends.",
        lambda s: (
            ((name, model.name), count) for model in s.snapshot.models for name, count in model.in_flight.items()
        ),
    ),
    Gauge("fairlane_tenant_queued", ("tenant",), "Requests that wait.", _tenants(lambda tenant: tenant.queued)),
    Gauge(
        "fairlane_tenant_queue_bytes",
        ("tenant",),
        "Bytes of its waiting tensors.",
        _tenants(lambda tenant: tenant.queue_bytes),
    ),
    Gauge(
        "fairlane_tenant_in_flight",
        ("tenant",),
        "Requests at the backends.",
        _tenants(lambda tenant: tenant.in_flight),
    ),
    Gauge(
        "fairlane_tenants",
        (),
        "Tenants that have something queued or in flight.",
        _single(lambda s: len(s.snapshot.tenants)),
    ),
    Gauge(
        "fairlane_pushback_seconds",
        ("class",),
        "After how long a refused request is told to come again, before jitter.",
        lambda s: (((each.name,), each.pushback_s) for each in s.snapshot.classes),
    ),
)

BATCHES: Final[tuple[Family, ...]] = (
    Counter(
        "fairlane_batches",
        ("backend", "model", "verdict"),
        "Batches that ended, by how: `succeeded`, `failed` (answered with an error), `garbled` (not what was asked), "
        "`unavailable` (not served now), `lost` (no answer), `abandoned` (by this side).",
        lambda s: (
            ((*key, verdict.value), count)
            for key, each in s.measures.batches.items()
            for verdict, count in each.verdicts.items()
        ),
    ),
    Distribution("fairlane_batch_rows", ("backend", "model"), "Rows of a batch.", _batches(lambda series: series.rows)),
    Counter(
        "fairlane_batch_requests",
        ("backend", "model"),
        "Requests that rode in batches.",
        _batches(lambda series: series.requests),
    ),
    Distribution(
        "fairlane_batch_duration_seconds",
        ("backend", "model"),
        "A batch's time at an instance, the wait for an instance taken off.",
        _batches(lambda series: series.service),
        every=2,
    ),
    Counter(
        "fairlane_batch_estimate_seconds",
        ("backend", "model"),
        "What the batches that succeeded were expected to take, together.",
        _batches(lambda series: series.estimated_s),
    ),
    Distribution(
        "fairlane_batch_estimate_ratio",
        ("backend", "model"),
        "Actual through expected duration of a batch; 1 is right.",
        _batches(lambda series: series.ratio),
    ),
    Counter(
        "fairlane_batches_unwanted",
        ("backend", "model"),
        "Batches whose callers had all gone and that were left to finish, as a cancelled call can end Triton before "
        "2.57.0.",
        _batches(lambda series: series.unwanted),
    ),
    Counter(
        "fairlane_batches_unwanted_seconds",
        ("backend", "model"),
        "What those took after the last caller had gone.",
        _batches(lambda series: series.unwanted_s),
    ),
    Counter(
        "fairlane_merge_checks",
        ("model", "result"),
        "Merged requests that were asked again alone, by what came of it: `agreed`, `differed`, `undecided` (alone the "
        "model differs from itself), `unanswered`.",
        lambda s: (((model, result.value), count) for (model, result), count in s.measures.merge_checks.items()),
    ),
    Gauge(
        "fairlane_merging_stopped",
        ("model",),
        "1 for a model whose requests ride alone, as merged ones were answered otherwise than alone; 0 once it is "
        "tried anew.",
        lambda s: (((model,), float(stopped)) for model, stopped in s.measures.merging_stopped.items()),
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
)

BACKENDS: Final[tuple[Family, ...]] = (
    Gauge(
        "fairlane_batches_overdue",
        ("backend", "model"),
        "Batches at the backend of which nothing has come for longer than `limits.hang_s` and ten times the usual.",
        lambda s: (
            ((backend.name, model), backend.overdue.get(model, 0))
            for backend in s.snapshot.backends
            for model in backend.in_flight
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
        "1 while the backend is ready, else 0; none for one that was removed.",
        lambda s: (((each.name,), float(each.ready)) for each in s.snapshot.backends if not each.leaving),
    ),
    Counter(
        "fairlane_backend_changes",
        ("change",),
        "Backends that were `added`, those at the start included, and `removed`: by a reload, or by a name.",
        lambda s: (((change,), count) for change, count in s.measures.backend_changes.items()),
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
        _backends(lambda backend: backend.work_s),
    ),
    Gauge(
        "fairlane_lesser_batches",
        ("backend",),
        "Batches in flight that a more important class may overtake: what the adaptive limit counts.",
        _backends(lambda backend: backend.concurrency.lesser),
    ),
    Gauge(
        "fairlane_lesser_batches_limit",
        ("backend",),
        "The adaptive limit: how many of them there may be while a more important model is active there; "
        "only the whole ones count.",
        _backends(lambda backend: backend.concurrency.limit),
    ),
    Gauge(
        "fairlane_slowdown_ratio",
        ("backend",),
        "How many times as long as alone the important model's batches take beside lesser ones of other models "
        "(a moving average): what the limit is steered by.",
        _backends(lambda backend: backend.concurrency.ratio),
    ),
    Gauge(
        "fairlane_lesser_batches_limit_gradient",
        ("backend",),
        "What that ratio multiplies the limit with: below 1 it falls, at 1 it grows.",
        _backends(lambda backend: backend.concurrency.gradient),
    ),
)

PROCESS: Final[tuple[Family, ...]] = (
    Gauge(
        "fairlane_build_info",
        ("version",),
        "1, with the version of Fairlane that runs.",
        lambda _: [((VERSION,), 1.0)],
    ),
    Distribution(
        "fairlane_event_loop_lag_seconds",
        (),
        "How late the event loop woke, ten times a second.",
        _single(lambda s: s.process.loop_lag),
        every=2,
    ),
    Distribution(
        "fairlane_gc_pause_seconds",
        (),
        "How long each run of the garbage collector took; nothing else runs meanwhile.",
        _single(lambda s: s.process.gc_pause),
        every=2,
    ),
)

METRICS: Final = (*REQUESTS, *QUEUES, *BATCHES, *BACKENDS, *PROCESS)
