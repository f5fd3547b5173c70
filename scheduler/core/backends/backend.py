"""One running Triton as the core sees it: what it can hold, what it holds, and how fast it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from scheduler.core.backends.breaker import Breaker
from scheduler.core.backends.concurrency import ConcurrencyLimit, Sample
from scheduler.core.backends.executions import Ended, Execution, Executions
from scheduler.core.backends.limit import READY_BATCHES, in_flight_limit
from scheduler.core.backends.parallelism import Parallelism
from scheduler.core.backends.pipe import Pipe
from scheduler.core.latency.estimate import Estimator
from scheduler.core.outcome import Verdict
from scheduler.core.ticket import IN_FLIGHT, Ticket

# What says nothing of whether the backend works.
UNHEARD: Final = frozenset({Verdict.LOST, Verdict.UNREACHED, Verdict.ABANDONED})

# Where more streams run at a time than the configuration says, as many as this part of those beyond may lie ready.
BEGUN_PART: Final = 2


@dataclass(frozen=True, slots=True)
class ModelCapacity:
    """What a backend offers of one model.

    Attributes:
        instances: executions at a time; of an ensemble those of its parts together.
        max_batch_size: rows of one batch, at most; 0: the model has no batch dimension.
        sequence_slots: stateful sequences that it keeps at a time; None: any number.
        queue_delay_s: how long Triton waits for an execution to fill, in seconds.
        delayed_below: rows of an execution below which it does so; 0: it never waits.
        streams: whether an answer comes in parts, the first of which tells that an execution has begun.
    """

    instances: int
    max_batch_size: int
    sequence_slots: int | None = None
    queue_delay_s: float = 0.0
    delayed_below: int = 0
    streams: bool = False


@dataclass(frozen=True, slots=True)
class BackendState:
    """What a driver reports of a backend; a name reported for the first time adds it.

    Attributes:
        failed: models that it has and could not load; nobody need wait for those.
        round_trip_s: of the network in between; 0: none to speak of.
    """

    name: str
    ready: bool
    models: Mapping[str, ModelCapacity]
    failed: frozenset[str] = frozenset()
    round_trip_s: float = 0.0


@dataclass(slots=True, eq=False)
class Batch:
    """Tickets at a backend as one request. Times in monotonic seconds.

    Attributes:
        started_at: when an instance was free for it; None while it lies ready behind others.
        latency_key: of its tickets.
        estimate_s: what it is expected to take, with what it has joined.
        join_key: of its tickets.
        patience_s: how long it may be with an instance, and give no sign, before it is overdue (patience.py).
        sign_at: when the last response of its stream came.
        overdue: whether it was found overdue.
        asked: how often its backend was asked about it, last at `asked_at`.
        inferences: how many of the model the backend had done then.
        rank: of the class that opened it.
        wait_s: of that class.
        lesser: whether a class with a `wait_s` may overtake it.
        crowd: lesser batches of other models beside it, the most that were seen (concurrency.py).
        abandoned: whether the driver was told to end its call.
        run_rows: rows of all that ran with it, once it has ended.
        under_way: executions of its model that the backend had when it came, its own included.
    """

    batch_id: int
    backend: str
    model: str
    latency_key: str | None
    tickets: tuple[Ticket, ...]
    rows: int
    estimate_s: float
    dispatched_at: float
    started_at: float | None
    patience_s: float = inf
    sign_at: float = -inf
    overdue: bool = False
    asked: int = 0
    asked_at: float = -inf
    inferences: int | None = None
    rank: int = 0
    wait_s: float | None = None
    lesser: bool = False
    crowd: int = 0
    abandoned: bool = False
    join_key: str | None = None
    run_rows: int = 0
    under_way: int = 1

    @property
    def began(self) -> float:
        """When its service began, as far as is known."""
        return self.dispatched_at if self.started_at is None else self.started_at

    @property
    def heard_at(self) -> float:
        """When something was last heard of it; of one that lies ready nothing is to be heard."""
        return max(self.began, self.sign_at)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for its answer."""
        return any(ticket.state is IN_FLIGHT for ticket in self.tickets)

    @property
    def stuck(self) -> bool:
        """Whether it is overdue, and nobody waits for it."""
        return self.overdue and not self.wanted


class Backend:
    """A backend's batches in flight, by model, in order of dispatch.

    Attributes:
        breakers: by model, of those that failed and have not answered since.
        answered_at: by model, when it last gave a sign of work, in monotonic seconds.
        silent_since: since when it is not ready, in monotonic seconds; infinite while it is.
        missed: by model, since when it is not served here though nobody unloaded it, in monotonic seconds.
        estimators: by model, what its batches take here.
        concurrency: how many lesser batches may run beside a more important model.
        most_in_flight: by model, executions that may be out, set by hand.
        leaving: whether it was removed, and stays until what it holds has ended.
    """

    __slots__ = (
        "_batches",
        "_in_flight",
        "_parallel",
        "_pipes",
        "answered_at",
        "breakers",
        "concurrency",
        "estimators",
        "leaving",
        "missed",
        "most_in_flight",
        "name",
        "silent_since",
        "state",
    )

    def __init__(self, state: BackendState) -> None:
        self.name = state.name
        self.state = state
        self.breakers: dict[str, Breaker] = {}
        self.missed: dict[str, float] = {}
        self.answered_at: dict[str, float] = {}
        self.silent_since = inf
        self.estimators: dict[str, Estimator] = {}
        self.concurrency = ConcurrencyLimit()
        self.leaving = False
        self.most_in_flight: Mapping[str, int] = {}
        self._parallel: dict[str, Parallelism] = {}
        self._pipes: dict[str, Pipe] = {}
        self._in_flight: dict[str, Executions] = {}
        self._batches: dict[int, Batch] = {}

    def has_place(self, model: str, rank: int = 0) -> bool:
        """Whether another execution of the model may be opened, for a class of this rank."""
        capacity = self.state.models.get(model)
        if capacity is None or not self.state.ready:
            return False
        executions = self._in_flight.get(model)
        if executions:
            most = self._most(model)
            if capacity.streams:
                # What waits at the backend for its turn keeps nobody out who is more important.
                most += executions.lesser(rank)
            if not executions.has_place(most, max(1, capacity.max_batch_size)):
                return False
        breaker = self.breakers.get(model) if self.breakers else None
        return breaker is None or breaker.takes_batch

    def joinable(self, model: str) -> bool:
        """Whether an execution lies ready that a batch might join."""
        executions = self._in_flight.get(model)
        if not executions or model in self.breakers or not self.state.ready:
            return False
        return next(executions.ready(), None) is not None

    def ready(self, ticket: Ticket) -> Execution | None:
        """The execution that lies ready and that Triton would run the ticket with; None where there is none."""
        executions, capacity = self._in_flight[ticket.model], self.state.models[ticket.model]
        most = self._most(ticket.model)
        if ticket.join_key is None or not executions.takes(ticket.rows, most, capacity.max_batch_size):
            return None
        for execution in executions.ready():
            if execution.join_key == ticket.join_key and (
                ticket.merge_key is None
                or ticket.merge_key not in execution.merge_keys
                or execution.rows < capacity.delayed_below
            ):
                return execution
        return None

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

    def rows_in_flight(self, model: str, merge_key: str | None) -> int:
        """Rows that the backend holds of the model's executions of this merge key alone."""
        executions = self._in_flight.get(model)
        return executions.rows_of(merge_key) if executions else 0

    def spare(self, model: str) -> int:
        """Idle instances of the model; less than zero: batches that lie behind others."""
        executions, instances = self._in_flight.get(model), self._instances(model)
        return executions.spare(instances) if executions else instances

    def overdue(self, model: str) -> int:
        """Batches of the model that were found overdue."""
        return sum(batch.overdue for batch in self._batches.values() if batch.model == model)

    def has_idle_instance(self, model: str) -> bool:
        """Whether a batch that is handed over now would run at once."""
        executions = self._in_flight.get(model)
        return not executions or executions.has_idle(self._instances(model))

    def next_free_at(self, model: str, part: float = 1.0) -> float:
        """When the first of the model's running batches is expected to end; long ago where none runs.

        Args:
            model: its name.
            part: of what they are expected to take.
        """
        executions = self._in_flight.get(model)
        return executions.next_free_at(part) if executions else -inf

    def open_at(self, model: str, part: float = 1.0, *, now: float) -> float:
        """When an instance is expected to be free for a batch that is not here yet: behind those that lie ready.

        Args:
            model: its name.
            part: of what the batches there are expected to take.
            now: monotonic seconds.
        """
        executions = self._in_flight.get(model)
        return executions.open_at(self._instances(model), part, now=now) if executions else now

    def breaker(self, model: str) -> Breaker:
        """The model's breaker, made on first use; dropped again when an answer closes it."""
        breaker = self.breakers.get(model)
        if breaker is None:
            breaker = self.breakers[model] = Breaker()
        return breaker

    def heard(self, batch: Batch, verdict: Verdict, *, now: float) -> None:
        """Tell the model's breaker how a batch ended."""
        if verdict not in UNHEARD:
            self.answered_at[batch.model] = now
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
        return sum([batch.lesser for batch in self._batches.values()])

    def _beside(self, batch: Batch) -> int:
        """Batches of other models in flight that are less important."""
        return sum([other.rank > batch.rank for other in self._batches.values() if other.model != batch.model])

    def _places(self) -> int:
        return sum(in_flight_limit(capacity.instances) for capacity in self.state.models.values())

    def _note_start(self, batch: Batch) -> None:
        if batch.wait_s is not None:
            self.concurrency.active(batch.model, batch.rank, most=self._places(), now=batch.dispatched_at)
            batch.crowd = self._beside(batch)

    def note_end(self, batch: Batch, ended: Ended, *, now: float) -> None:
        """Tell the limit how an execution that succeeded has fared beside others."""
        if batch.wait_s is None or len(self.state.models) < 2:
            return
        crowd = max(batch.crowd, self._beside(batch))
        sample = Sample(batch.model, batch.latency_key, *ended, batch.wait_s, crowd)
        self.concurrency.learn(sample, most=self._places(), now=now)

    def busy_models(self) -> list[str]:
        """Models with batches in flight, also those that the backend no longer offers."""
        return [model for model, executions in self._in_flight.items() if executions]

    def work_s(self) -> float:
        """Estimated seconds of service in flight, over all models."""
        return sum([executions.work_s for executions in self._in_flight.values()])

    def start(self, batch: Batch, into: Execution | None = None) -> None:
        """Hand a batch over; it runs where an instance is free.

        Args:
            batch: the batch.
            into: the execution that lies ready and that it joins; None: it is one of its own.
        """
        if len(self.state.models) > 1:
            self._note_start(batch)
        executions = self._in_flight.get(batch.model)
        if executions is None:
            executions = self._in_flight[batch.model] = Executions()
        if into is None:
            into = Execution(batch.join_key, batch.rank)
        if into.rank >= batch.rank:
            into.rank, into.rank_rows = batch.rank, into.rows + batch.rows
        into.estimate_s = batch.estimate_s
        into.merge_keys.add(batch.tickets[0].merge_key if batch.tickets else None)
        capacity = self.state.models.get(batch.model)
        full_rows = 0 if capacity is None else capacity.delayed_below
        executions.add(batch, into, self._instances(batch.model), full_rows)
        batch.under_way = executions.count
        self._batches[batch.batch_id] = batch

    def change(self, state: BackendState, *, now: float) -> None:
        """Take in a new state; where there are more instances, batches that lay ready run from now on.

        A backend that is not ready any more is missed with all its models, and each of them until it is served again:
        a server that comes back may load them one by one. A model that a ready backend serves no longer was unloaded.
        """
        if state.ready:
            self.silent_since = inf
            for model in (*state.models, *state.failed):
                self.missed.pop(model, None)
        else:
            self.silent_since = min(self.silent_since, now)
            if self.state.ready:
                self.missed |= dict.fromkeys(self.state.models, now)
        self.state = state
        for model, executions in self._in_flight.items():
            executions.fill(self._instances(model), now=now)

    def finish(self, batch: Batch, *, now: float, answered: bool = True) -> Ended | None:
        """Take a batch out, and let what lay ready run; what its execution took, as in Executions.end."""
        del self._batches[batch.batch_id]
        if answered and self.state.round_trip_s:
            pipe, instances = self._pipes.setdefault(batch.model, Pipe()), self._configured(batch.model)
            pipe.ended(now - batch.dispatched_at, self.state.round_trip_s, batch.under_way, instances)
        return self._in_flight[batch.model].end(batch, answered=answered, now=now)

    def learns(self, model: str) -> bool:
        """Whether it is tried how many executions of the model run at a time.

        Not where it has a batch dimension: its instances and batches tell.
        """
        capacity = self.state.models.get(model)
        return capacity is not None and not capacity.max_batch_size

    def delivered(self, batch: Batch, rows: int, *, wanted: bool, calm: bool, now: float) -> None:
        """An execution of a model that is learned of has ended with this batch's answer; see Parallelism.ended."""
        latency_s, learned = now - batch.dispatched_at, self._parallelism(batch.model)
        learned.ended(rows, latency_s, batch.under_way, wanted=wanted, calm=calm, now=now)

    def begin(self, batch: Batch) -> bool:
        """A part of a batch's answer has come; whether that may have opened a place."""
        return self._in_flight[batch.model].begin(batch.batch_id)

    def _parallelism(self, model: str) -> Parallelism:
        """What was learned of the model; void where the configuration has another number of instances now."""
        learned, instances = self._parallel.get(model), self._configured(model)
        if learned is None or learned.instances != instances:
            learned = self._parallel[model] = Parallelism(instances)
        return learned

    def _configured(self, model: str) -> int:
        capacity = self.state.models.get(model)
        return 1 if capacity is None else capacity.instances

    def _instances(self, model: str) -> int:
        """Executions of the model that run at a time: as configured, as learned, or as have begun and a part more."""
        if self.most_in_flight and (most := self.most_in_flight.get(model)) is not None:
            return max(1, most - READY_BATCHES)
        capacity, round_trip_s = self.state.models.get(model), self.state.round_trip_s
        if capacity is not None and capacity.max_batch_size and not capacity.streams and not round_trip_s:
            return capacity.instances
        learned, ways = self._parallel.get(model), self._configured(model)
        if round_trip_s and (pipe := self._pipes.get(model)) is not None:
            ways = pipe.ways(ways, round_trip_s)
        if learned is not None:
            ways = max(learned.ways, ways)
        if capacity is not None and capacity.streams:
            begun = self._in_flight[model].begun if model in self._in_flight else 0
            ways = max(ways, begun + max(0, begun - ways) // BEGUN_PART)
        return ways

    def _most(self, model: str) -> int:
        """Executions of the model that may be out."""
        most = self.most_in_flight.get(model)
        return in_flight_limit(self._instances(model)) if most is None else most
