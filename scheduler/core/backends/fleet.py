"""The backends, and every batch that is out at one of them.

A batch ends once: answered, lost, withdrawn, or taken out because nobody knows whether it ever will end (patience.py).
The answer to a batch that was taken out comes late or never; its number is remembered until the driver reports it.

A backend that was ready and is not any more is missed: for `outage_s` its models count as offered, so that tickets wait
for it, and arrivals with them. A slow probe, a restart or a server that stands still for a while then costs time and
no answer.
"""

from collections.abc import Collection, Iterator, Mapping
from math import inf
from typing import Final, NamedTuple

from scheduler.core.admission.feasibility import Outlook
from scheduler.core.backends.backend import Backend, BackendState, Batch
from scheduler.core.backends.breaker import BreakerState
from scheduler.core.backends.executions import Execution
from scheduler.core.backends.patience import GONE, Found, Patience, Statement
from scheduler.core.backends.placement import place
from scheduler.core.latency.evidence import cost_of
from scheduler.core.outcome import Verdict
from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.queues.lane import Lane
from scheduler.core.snapshot import BackendSnapshot, BreakerSnapshot, ConcurrencySnapshot
from scheduler.core.ticket import Ticket

# Verdicts that tell that an execution is over.
ANSWERED: Final = frozenset({Verdict.SUCCEEDED, Verdict.FAILED, Verdict.GARBLED})


class _Offer(NamedTuple):
    """The ready backends that serve a model, be their breakers open or not; sums and largest as in Outlook.

    `delayed`: whether one of them waits for executions to fill; `streams`: whether its answers come in parts.
    """

    backends: tuple[Backend, ...]
    instances: int
    max_batch_size: int
    delayed: bool
    streams: bool


class Fleet:
    """Backends by name and batches by number. Times in monotonic seconds.

    Args:
        patience: how long batches and missed backends are waited for.
    """

    __slots__ = (
        "_awaited",
        "_backends",
        "_batches",
        "_given_up",
        "_last_batch_id",
        "_most_in_flight",
        "_offers",
        "_opened",
        "_patience",
    )

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._most_in_flight: Mapping[str, int] = {}
        self._backends: dict[str, Backend] = {}
        self._batches: dict[int, Batch] = {}
        self._given_up: set[int] = set()
        self._last_batch_id = 0
        # By model; made anew with every change of a backend, so that a ticket's way costs no walk over backends.
        self._offers: dict[str, _Offer] = {}
        # Models that no ready backend serves, by when their missed backends are given up.
        self._awaited: dict[str, float] = {}
        # Backends where a breaker is not closed.
        self._opened: dict[str, Backend] = {}

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def idle(self) -> bool:
        """Whether no batch is out, and no call of one that was given up."""
        return not self._batches and not self._given_up

    @property
    def riders(self) -> int:
        """Tickets in the batches that are out, those included whose caller has gone."""
        return sum(len(batch.tickets) for batch in self._batches.values())

    def held(self) -> Iterator[Ticket]:
        """The tickets at the backends, those of callers that have gone included."""
        for batch in self._batches.values():
            yield from batch.tickets

    def set_state(self, state: BackendState, *, now: float) -> None:
        """Add a backend, or change what it offers; one that is ready again is probed at once."""
        backend = self._backends.get(state.name)
        if backend is None:
            self._backends[state.name] = backend = Backend(state)
            backend.most_in_flight = self._most_in_flight
        else:
            backend.leaving = False
            if state.ready and not backend.state.ready:
                for breaker in backend.breakers.values():
                    breaker.retry_at = min(breaker.retry_at, now)
            backend.change(state, now=now)
            if self._batches and not state.ready:
                self._patience.look_at = min(self._patience.look_at, now + self._patience.outage_s)
        self._count_offers(now)

    def bound(self, most_in_flight: Mapping[str, int]) -> None:
        """Give each backend no more executions of these models than so many."""
        self._most_in_flight = most_in_flight
        for backend in self._backends.values():
            backend.most_in_flight = most_in_flight

    def remove(self, name: str, *, now: float) -> None:
        """Let a backend go: nothing new is sent there, and it is forgotten when what it holds has ended.

        A model that no other one serves is waited for, as one that is missed: another may come in its place. Whether
        it is silent is told by what it says of overdue batches alone: it gets no probes any more.
        """
        backend = self._backends.get(name)
        if backend is not None:
            backend.change(BackendState(name, ready=False, models={}), now=now)
            backend.leaving = True
            backend.silent_since = inf
            self._count_offers(now)

    def reconfigure(self, *, now: float) -> None:
        """The patience has changed, also with what is missed already."""
        self._count_offers(now)

    def _count_offers(self, now: float) -> None:
        ready = [each for each in self._backends.values() if each.state.ready]
        models = {model for each in ready for model in each.state.models}
        self._offers = {
            model: _offer(model, [each for each in ready if model in each.state.models]) for model in models
        }
        self._awaited = {}
        for backend in self._backends.values():
            for model, since in backend.missed.items():
                until = since + self._patience.outage_s
                if model not in models and until > now:
                    self._awaited[model] = max(until, self._awaited.get(model, until))
        self._forget_left()

    def _forget_left(self) -> None:
        """Forget removed backends that hold nothing, and whose models nobody waits for."""
        for backend in [each for each in self._backends.values() if each.leaving]:
            if not backend.busy_models() and self._awaited.keys().isdisjoint(backend.missed):
                del self._backends[backend.name]
                self._opened.pop(backend.name, None)

    def names(self) -> Collection[str]:
        """The backends, those included that were removed and still hold something."""
        return self._backends.keys()

    def offered(self, model: str) -> bool:
        """Whether a ready backend serves the model, be its breaker open or not, or a missed one is expected to."""
        return model in self._offers or model in self._awaited

    def served(self, model: str) -> bool:
        """Whether a ready backend serves the model, be its breaker open or not."""
        return model in self._offers

    def given_up(self, *, now: float) -> list[str]:
        """Models whose missed backends have been waited for long enough; they are not offered any more."""
        over = [model for model, until in self._awaited.items() if until <= now]
        for model in over:
            del self._awaited[model]
        if over:
            self._forget_left()
        return over

    def outlook(self, model: str, part: float, *, now: float) -> Outlook:
        """What the ready backends offer of a model that is served, and when a further batch could start.

        Args:
            model: its name.
            part: the least part of what they are expected to take that its batches took of late.
            now: monotonic seconds.
        """
        backends, instances, max_batch_size, *_ = self._offers[model]
        if idle := self.idle_instances(model):
            return Outlook(now, now, idle, instances, max_batch_size)
        start_at = min([backend.open_at(model, now=now) for backend in backends])
        earliest_at = start_at
        if part < 1.0:
            earliest_at = min([backend.open_at(model, part, now=now) for backend in backends])
        return Outlook(start_at, earliest_at, 0, instances, max_batch_size)

    def idle_instances(self, model: str) -> int:
        """Instances of a model, on all ready backends, that run nothing."""
        offer = self._offers.get(model)
        return 0 if offer is None else sum([max(0, backend.spare(model)) for backend in offer.backends])

    def spare(self, model: str) -> int:
        """Idle instances of a model on its ready backends; less than zero: batches that lie behind others."""
        offer = self._offers.get(model)
        if offer is None:
            return 0
        return sum([backend.spare(model) for backend in offer.backends])

    def able(self, model: str) -> list[Backend]:
        """The backends that take another batch of the model."""
        offer = self._offers.get(model)
        return [] if offer is None else [backend for backend in offer.backends if backend.has_place(model)]

    def delays(self, model: str) -> bool:
        """Whether a backend waits for executions of the model to fill."""
        offer = self._offers.get(model)
        return offer is not None and offer.delayed

    def streams(self, model: str) -> bool:
        """Whether answers of the model come in parts."""
        offer = self._offers.get(model)
        return offer is not None and offer.streams

    def joinable(self, model: str) -> list[Backend]:
        """The backends where an execution of the model lies ready that a batch might join."""
        offer = self._offers.get(model)
        return [] if offer is None else [backend for backend in offer.backends if backend.joinable(model)]

    def place(self, able: list[Backend], lane: Lane, ticket: Ticket) -> Backend | None:
        """Where of the able backends the batch goes that this ticket opens; None where it waits for another."""
        backends = self._backends.values()
        if len(backends) == 1:
            return able[0]
        for backend in able:
            backend.estimator(lane.model, lane.estimator)
        return place(able, backends, ticket)

    def batch(self, batch_id: int) -> Batch | None:
        """The batch of that number; None where it is not out any more."""
        return self._batches.get(batch_id)

    def batch_of(self, ticket: Ticket) -> Batch | None:
        """The batch that the ticket rides in."""
        return self._batches.get(ticket.batch_id)

    def start(
        self,
        lane: Lane,
        backend: Backend,
        tickets: tuple[Ticket, ...],
        opened_by: ClassQueue,
        *,
        now: float,
        into: Execution | None = None,
    ) -> Batch:
        """Book a batch of these tickets out at the backend, in an execution of its own or in one that lies ready."""
        self._last_batch_id += 1
        rows = sum([ticket.rows for ticket in tickets])
        latency_key = tickets[0].latency_key
        estimator = backend.estimator(lane.model, lane.estimator)
        beside = 0 if into is None else into.rows
        by_cost_s = lane.evidence.cost_s(cost_of(tickets)) if into is None else None
        by_rows_s = estimator.line(latency_key).predict(beside + rows)
        batch = Batch(
            batch_id=self._last_batch_id,
            backend=backend.name,
            model=lane.model,
            latency_key=latency_key,
            tickets=tickets,
            rows=rows,
            estimate_s=by_rows_s if by_cost_s is None else by_cost_s,
            dispatched_at=now,
            started_at=None,
            rank=opened_by.rank,
            wait_s=opened_by.settings.wait_s,
            lesser=opened_by.above_wait_s is not None,
            join_key=tickets[0].join_key,
        )
        for ticket in tickets:
            ticket.batch_id = batch.batch_id
        self._patience.begin(batch, known=estimator.knows(latency_key))
        if backend.breakers and (breaker := backend.breakers.get(lane.model)) is not None:
            breaker.sent(batch.batch_id)
        backend.start(batch, into)
        self._batches[batch.batch_id] = batch
        return batch

    def finish(self, batch_id: int, verdict: Verdict, lanes: Mapping[str, Lane], *, now: float) -> Batch | None:
        """Take a batch out, and learn from it.

        Returns:
            The batch; None for one that was given up before.

        Raises:
            ValueError: there is no such batch.
        """
        if batch_id in self._given_up:
            self._given_up.remove(batch_id)
            return None
        batch = self._batches.pop(batch_id, None)
        if batch is None:
            raise ValueError(f"batch {batch_id} is not in flight")
        backend = self._backends[batch.backend]
        ended = backend.finish(batch, answered=verdict in ANSWERED, now=now)
        backend.heard(batch, verdict, now=now)
        self._note(backend)
        if not self._batches:
            self._patience.look_at = inf
        if backend.leaving:
            self._forget_left()
        # What nobody waits for any more says something where it was slow: it has taken at least that long. Else only
        # those that were fast enough for their deadlines would be learned from, and the next ones be let in for ever.
        slow = (
            verdict is Verdict.ABANDONED
            and batch.started_at is not None
            and ended is not None
            and ended.service_s > batch.estimate_s
        )
        if ended is not None and (slow or verdict is Verdict.SUCCEEDED):
            lane = lanes[batch.tickets[0].lane]
            if not slow:
                backend.note_end(batch, ended, now=now)
                if backend.learns(batch.model):
                    backend.delivered(batch, ended.rows, wanted=lane.waits, calm=lane.calm(now=now), now=now)
            learned_s = backend.estimator(batch.model, lane.estimator).learn(batch.latency_key, *ended)
            lane.estimator.add(batch.latency_key, ended.rows, learned_s)
            cost = cost_of(batch.tickets) if ended.rows == batch.rows else None
            lane.evidence.learn(batch.latency_key, ended.rows, cost, ended.service_s, now=now)
        return batch

    def look(self, *, now: float) -> Found:
        """Find the batches to ask about, and those to give up; a model of which nothing else ends is doubted."""
        found = self._patience.look(self._batches, self._backends, now=now)
        for batch, why in found.given_up:
            self._doubt(batch, why, now)
        return found

    def hear_of(self, batch_id: int, *, now: float) -> str | None:
        """A part of a batch's answer has come; nothing is to be learned where it was taken out.

        Returns:
            The model for which that may have opened a place: its execution has begun. None: for none.
        """
        batch = self._batches.get(batch_id)
        if batch is None:
            return None
        batch.sign_at = now
        batch.overdue = False
        batch.inferences = None
        backend = self._backends[batch.backend]
        backend.answered_at[batch.model] = now
        return batch.model if backend.begin(batch) else None

    def testify(self, batch_id: int, statement: Statement, *, now: float) -> Verdict | None:
        """Take in what a backend said of the model of an overdue batch.

        Returns:
            What the batch is to be taken out with: LOST where the backend does not have the model any more, ABANDONED
            where the model is stuck. None: it is waited for.
        """
        batch = self._batches.get(batch_id)
        if batch is None or not batch.overdue:  # by now something has come of it
            return None
        backend = self._backends[batch.backend]
        if backend.leaving:
            backend.silent_since = inf if statement.live else min(backend.silent_since, now)
        if not statement.live:
            return None
        if not statement.served:
            backend.breaker(batch.model).failed(batch_id, GONE, at_once=True, now=now)
            self._note(backend)
            return Verdict.LOST
        before, batch.inferences = batch.inferences, statement.inferences
        if before is not None and before != statement.inferences:
            backend.answered_at[batch.model] = now
        elif before is not None and batch.stuck:
            doubted = self._doubt(batch, f"nothing has ended in {now - batch.heard_at:.3g} s", now)
            return Verdict.ABANDONED if doubted else None
        return None

    def _doubt(self, batch: Batch, why: str, now: float) -> bool:
        """Send no more of the model than probes, unless something else of it has ended since this batch began."""
        backend = self._backends[batch.backend]
        if backend.answered_at.get(batch.model, -inf) > batch.heard_at:
            return False
        backend.breaker(batch.model).failed(batch.batch_id, why, at_once=True, now=now)
        self._note(backend)
        return True

    def take_out(self, batch: Batch, *, now: float) -> None:
        """Free a batch's place without waiting for its end."""
        del self._batches[batch.batch_id]
        self._given_up.add(batch.batch_id)
        self._backends[batch.backend].finish(batch, answered=False, now=now)
        self._forget_left()
        if not self._batches:
            self._patience.look_at = inf

    def tick(self, *, now: float) -> list[str]:
        """Let time pass; returns models for which a breaker lets a probe out now."""
        probing: list[str] = []
        for backend in self._opened.values():
            probing += backend.tick(now=now)
        return probing

    def next_wakeup(self) -> float:
        """When `look`, `given_up` or `tick` is due next; infinite: never."""
        at = self._patience.look_at
        if self._awaited:
            at = min(at, *self._awaited.values())
        for backend in self._opened.values():
            for breaker in backend.breakers.values():
                if breaker.state is BreakerState.OPEN:
                    at = min(at, breaker.retry_at)
        return at

    def snapshot(self) -> tuple[BackendSnapshot, ...]:
        """Every backend's state."""
        return tuple(_snapshot(backend) for backend in self._backends.values())

    def _note(self, backend: Backend) -> None:
        if backend.breakers:
            self._opened[backend.name] = backend
        elif self._opened:
            self._opened.pop(backend.name, None)


def _offer(model: str, backends: list[Backend]) -> _Offer:
    capacities = [backend.state.models[model] for backend in backends]
    return _Offer(
        backends=tuple(backends),
        instances=sum(capacity.instances for capacity in capacities),
        max_batch_size=max(1, *(capacity.max_batch_size for capacity in capacities)),
        delayed=any(capacity.delayed_below for capacity in capacities),
        streams=any(capacity.streams for capacity in capacities),
    )


def may_try_again(ticket: Ticket, batch: Batch, verdict: Verdict) -> bool:
    """Whether a live ticket of a batch that ended this way is sent once more, alone; marks it where that is its last.

    A ticket that was merged and failed is tried alone, as another may be guilty. One that was lost is sent a second
    time, but not a third: inference keeps no state, and what takes a backend down is not to take down all. One that
    reached no backend has taken none down. A step of a sequence is sent once.
    """
    if verdict is Verdict.FAILED or verdict is Verdict.GARBLED:
        return len(batch.tickets) > 1
    if ticket.step is not None:
        return False
    if verdict is Verdict.UNREACHED:
        return True
    if ticket.resent or (verdict is not Verdict.LOST and verdict is not Verdict.UNAVAILABLE):
        return False
    ticket.resent = True
    return True


def _snapshot(backend: Backend) -> BackendSnapshot:
    in_flight = {model: backend.in_flight(model) for model in (*backend.state.models, *backend.busy_models())}
    breakers = {
        model: BreakerSnapshot(breaker.state.value, breaker.why, breaker.since, breaker.retry_at)
        for model, breaker in backend.breakers.items()
    }
    overdue = {model: count for model in backend.busy_models() if (count := backend.overdue(model))}
    limit = backend.concurrency
    concurrency = ConcurrencySnapshot(
        limit.limit, backend.lesser(), limit.ratio, limit.gradient, limit.why, limit.moved_at
    )
    about = backend.name, backend.state.ready, backend.leaving
    return BackendSnapshot(*about, in_flight, backend.work_s(), breakers, overdue, concurrency)
