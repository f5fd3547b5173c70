"""One running Triton as the core sees it: what it can hold, what it holds, and how fast it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heapreplace
from math import inf

from scheduler.core.breaker import Breaker
from scheduler.core.concurrency import ConcurrencyLimit, Sample
from scheduler.core.estimate import Estimator
from scheduler.core.limit import in_flight_limit
from scheduler.core.outcome import Verdict
from scheduler.core.ticket import Ticket


@dataclass(frozen=True, slots=True)
class ModelCapacity:
    """What a backend offers of one model.

    Attributes:
        instances: execution slots.
        max_batch_size: rows of one batch, at most; 0: the model has no batch dimension.
        sequence_slots: stateful sequences that it keeps at a time; None: any number.
    """

    instances: int
    max_batch_size: int
    sequence_slots: int | None = None


@dataclass(frozen=True, slots=True)
class BackendState:
    """What a driver reports of a backend; a name reported for the first time adds it."""

    name: str
    ready: bool
    models: Mapping[str, ModelCapacity]


@dataclass(slots=True, eq=False)
class Batch:
    """Tickets at a backend as one request. Times in monotonic seconds.

    Attributes:
        started_at: when an instance was free for it; None while it lies ready behind others.
        patience_s: how long it may be with an instance before it counts as hung.
        rank: of the class that opened it.
        wait_s: of that class.
        lesser: whether a class with a `wait_s` may overtake it.
        crowd: lesser batches of other models beside it, the most that were seen (concurrency.py).
        abandoned: whether the driver was told to end its call.
    """

    batch_id: int
    backend: str
    model: str
    merge_key: str | None
    tickets: tuple[Ticket, ...]
    rows: int
    estimate_s: float
    dispatched_at: float
    started_at: float | None
    patience_s: float = inf
    rank: int = 0
    wait_s: float | None = None
    lesser: bool = False
    crowd: int = 0
    abandoned: bool = False

    @property
    def began(self) -> float:
        """When its service began, as far as is known."""
        return self.dispatched_at if self.started_at is None else self.started_at

    @property
    def hangs_at(self) -> float:
        """When it counts as hung; never while it lies ready."""
        return inf if self.started_at is None else self.started_at + self.patience_s


class Backend:
    """A backend's batches in flight, by model, in order of dispatch.

    Attributes:
        breakers: by model, of those that failed and have not answered since.
        missed: by model, since when it is not served here though nobody unloaded it, in monotonic seconds.
        estimators: by model, what its batches take here.
        concurrency: how many lesser batches may run beside a more important model.
    """

    __slots__ = ("_in_flight", "breakers", "concurrency", "estimators", "missed", "name", "state")

    def __init__(self, state: BackendState) -> None:
        self.name = state.name
        self.state = state
        self.breakers: dict[str, Breaker] = {}
        self.missed: dict[str, float] = {}
        self.estimators: dict[str, Estimator] = {}
        self.concurrency = ConcurrencyLimit()
        self._in_flight: dict[str, dict[int, Batch]] = {}

    def has_place(self, model: str) -> bool:
        """Whether another batch of the model may be handed over."""
        capacity = self.state.models.get(model)
        if capacity is None or not self.state.ready:
            return False
        batches = self._in_flight.get(model)
        if batches and len(batches) >= in_flight_limit(capacity.instances):
            return False
        breaker = self.breakers.get(model) if self.breakers else None
        return breaker is None or breaker.takes_batch

    def fits(self, ticket: Ticket) -> bool:
        """Whether the ticket is within the model's max_batch_size here."""
        capacity = self.state.models.get(ticket.model)
        return capacity is not None and ticket.rows <= max(1, capacity.max_batch_size)

    def estimator(self, model: str, others: Estimator) -> Estimator:
        """How long the model's batches take here; by `others` until the first has ended."""
        estimator = self.estimators.get(model)
        if estimator is None:
            estimator = self.estimators[model] = Estimator(others)
        return estimator

    def in_flight(self, model: str) -> int:
        """Batches of the model that the backend holds."""
        return len(self._in_flight.get(model, ()))

    def has_idle_instance(self, model: str) -> bool:
        """Whether a batch that is handed over now would run at once."""
        batches = self._in_flight.get(model)
        return not batches or len(batches) < self._instances(model)

    def next_free_at(self, model: str) -> float:
        """When the first of the model's running batches is expected to end; long ago where none runs."""
        ends = [
            batch.started_at + batch.estimate_s
            for batch in self._in_flight.get(model, {}).values()
            if batch.started_at is not None
        ]
        return min(ends, default=-inf)

    def open_at(self, model: str, *, now: float) -> float:
        """When an instance is expected to be free for a batch that is not here yet: behind those that lie ready."""
        if self.has_idle_instance(model):
            return now
        ends, ready = [], []
        for batch in self._in_flight[model].values():
            if batch.started_at is None:
                ready.append(batch.estimate_s)
            else:
                ends.append(max(now, batch.started_at + batch.estimate_s))
        heapify(ends)
        for estimate_s in ready:
            heapreplace(ends, ends[0] + estimate_s)
        return ends[0]

    def breaker(self, model: str) -> Breaker:
        """The model's breaker, made on first use; dropped again when an answer closes it."""
        breaker = self.breakers.get(model)
        if breaker is None:
            breaker = self.breakers[model] = Breaker()
        return breaker

    def heard(self, batch: Batch, verdict: Verdict, *, now: float) -> None:
        """Tell the model's breaker how a batch ended."""
        if verdict is Verdict.SUCCEEDED or verdict is Verdict.FAILED:
            if self.breakers:
                self.breakers.pop(batch.model, None)
        elif verdict is Verdict.ABANDONED:
            if (breaker := self.breakers.get(batch.model)) is not None:
                breaker.withdrawn(batch.batch_id)
        else:
            at_once = verdict is Verdict.LOST or verdict is Verdict.UNREACHED
            self.breaker(batch.model).failed(batch.batch_id, verdict.value, at_once=at_once, now=now)

    def tick(self, *, now: float) -> list[str]:
        """Models whose breaker lets a probe out from now on."""
        return [model for model, breaker in self.breakers.items() if breaker.tick(now=now)]

    def crowded(self, model: str, rank: int, *, now: float) -> bool:
        """Whether another batch of the model, of a class that can be overtaken, would be one too many."""
        if len(self.state.models) < 2 or not self.concurrency.binds(model, rank, now=now):
            return False
        return self.lesser() >= int(self.concurrency.limit)

    def lesser(self) -> int:
        """Batches in flight that a class with a `wait_s` may overtake."""
        return sum(batch.lesser for batches in self._in_flight.values() for batch in batches.values())

    def _beside(self, batch: Batch) -> int:
        """Batches of other models in flight that are less important."""
        return sum(
            other.rank > batch.rank
            for model, batches in self._in_flight.items()
            if model != batch.model
            for other in batches.values()
        )

    def _places(self) -> int:
        return sum(in_flight_limit(capacity.instances) for capacity in self.state.models.values())

    def _note_start(self, batch: Batch) -> None:
        if batch.wait_s is not None:
            self.concurrency.active(batch.model, batch.rank, most=self._places(), now=batch.dispatched_at)
            batch.crowd = self._beside(batch)

    def note_end(self, batch: Batch, service_s: float, *, now: float) -> None:
        """Tell the limit how a batch that succeeded has fared beside others."""
        if batch.wait_s is None or len(self.state.models) < 2:
            return
        crowd = max(batch.crowd, self._beside(batch))
        sample = Sample(batch.model, batch.merge_key, batch.rows, service_s, batch.wait_s, crowd)
        self.concurrency.learn(sample, most=self._places(), now=now)

    def busy_models(self) -> list[str]:
        """Models with batches in flight, also those that the backend no longer offers."""
        return [model for model, batches in self._in_flight.items() if batches]

    def work_s(self) -> float:
        """Estimated seconds of service in flight, over all models."""
        return sum(batch.estimate_s for batches in self._in_flight.values() for batch in batches.values())

    def start(self, batch: Batch) -> None:
        """Hand a batch over; it runs at once where an instance is free."""
        if len(self.state.models) > 1:
            self._note_start(batch)
        batches = self._in_flight.setdefault(batch.model, {})
        if not batches or self._running(batches) < self._instances(batch.model):
            batch.started_at = batch.dispatched_at
        batches[batch.batch_id] = batch

    def change(self, state: BackendState, *, now: float) -> None:
        """Take in a new state; where there are more instances, batches that lay ready run from now on.

        A backend that is not ready any more is missed with all its models, and each of them until it is served again:
        a server that comes back may load them one by one. A model that a ready backend serves no longer was unloaded.
        """
        if state.ready:
            for model in state.models:
                self.missed.pop(model, None)
        elif self.state.ready:
            self.missed |= dict.fromkeys(self.state.models, now)
        self.state = state
        for model, batches in self._in_flight.items():
            for _ in range(self._instances(model) - self._running(batches)):
                self._run_oldest(batches, now)

    def finish(self, batch: Batch, *, now: float) -> float:
        """Take a batch out, let the oldest that lay ready run, and return the service seconds of this one.

        Triton does not tell when an instance took a batch, so the start is inferred: instances take
        batches in order, each when one that ran before has ended.
        """
        batches = self._in_flight[batch.model]
        del batches[batch.batch_id]
        began = batch.dispatched_at if batch.started_at is None else batch.started_at
        if batch.started_at is not None:
            self._run_oldest(batches, now)
        return now - began

    @staticmethod
    def _running(batches: dict[int, Batch]) -> int:
        return len([1 for batch in batches.values() if batch.started_at is not None])

    def _run_oldest(self, batches: dict[int, Batch], now: float) -> None:
        for batch in batches.values():
            if batch.started_at is None:
                batch.started_at = now
                return

    def _instances(self, model: str) -> int:
        capacity = self.state.models.get(model)
        return 1 if capacity is None else capacity.instances
