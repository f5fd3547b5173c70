"""The scheduler's state as one frozen record: for the debug page, for gauges, and for tests to assert on."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """A class over all models: what waits, and its tensors' bytes."""

    name: str
    queued: int
    queue_bytes: int
    pushback_s: float


@dataclass(frozen=True, slots=True)
class TenantSnapshot:
    """A tenant that has something queued or in flight: tickets, and their bytes in the queue and rows in flight."""

    name: str
    queued: int
    in_flight: int
    queue_bytes: int
    rows_in_flight: int


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """A model's queues, its learned latency line, and its stateful sequences.

    Attributes:
        name: of the model.
        queued: waiting tickets by class.
        in_flight: tickets at the backends by class.
        retrying: tickets of failed batches that wait to be tried alone.
        batch_s: seconds a batch.
        row_s: seconds a row.
        sequences: known at the moment, by the backend that has their state; under an empty name those without one.
    """

    name: str
    queued: Mapping[str, int]
    in_flight: Mapping[str, int]
    retrying: int
    batch_s: float
    row_s: float
    sequences: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """A circuit breaker: its state, what opened it last, and since when; `retry_at` is when it lets a probe out.

    Times in monotonic seconds.
    """

    state: str
    why: str
    since: float
    retry_at: float


@dataclass(frozen=True, slots=True)
class ConcurrencySnapshot:
    """The limit on lesser batches beside a more important model: how many there are, and why it moved last.

    `ratio` is how many times as long the important model's batches take as alone, and `gradient` what the limit is
    multiplied with for it; `moved_at` in monotonic seconds.
    """

    limit: float
    lesser: int
    ratio: float
    gradient: float
    why: str
    moved_at: float


@dataclass(frozen=True, slots=True)
class BackendSnapshot:
    """A backend's batches in flight by model, and their estimated seconds of service together.

    `leaving`: it was removed, and is there until what it holds has ended. `breakers` has the models that failed there
    and have not answered since, `overdue` the batches by model of which nothing has come for longer than usual
    (patience.py).
    """

    name: str
    ready: bool
    leaving: bool
    in_flight: Mapping[str, int]
    work_s: float
    breakers: Mapping[str, BreakerSnapshot]
    overdue: Mapping[str, int]
    concurrency: ConcurrencySnapshot


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it. `ended` counts tickets by outcome since the start."""

    queued: int
    queue_bytes: int
    in_flight: int
    classes: tuple[ClassSnapshot, ...]
    tenants: tuple[TenantSnapshot, ...]
    models: tuple[ModelSnapshot, ...]
    backends: tuple[BackendSnapshot, ...]
    ended: Mapping[str, int]
