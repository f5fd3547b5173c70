"""The backends, and every batch that is out at one of them.

A batch ends once: answered, lost, withdrawn, or given up because it hangs (breaker.py). The answer to a
batch that was given up comes late or never; its number is remembered until the driver reports it.

A backend that was ready and is not any more is missed: for `outage_s` its models count as offered, so that tickets wait
for it, and arrivals with them. A slow probe, a restart or a server that stands still for a while then costs time and
no answer.

Hangs are looked for no later than each is due: no batch may hang before `hang_s` have passed since its start, so a
look every `hang_s`, or sooner where the last one saw an earlier end of patience, misses none.
"""

from collections.abc import Collection, Iterator, Mapping
from math import inf
from typing import Final, NamedTuple

from scheduler.core.backend import Backend, BackendState, Batch
from scheduler.core.breaker import BreakerState, hangs_after_s
from scheduler.core.class_queue import ClassQueue
from scheduler.core.evidence import cost_of
from scheduler.core.executions import Execution
from scheduler.core.feasibility import Outlook
from scheduler.core.lane import Lane
from scheduler.core.outcome import Verdict
from scheduler.core.placement import place
from scheduler.core.snapshot import BackendSnapshot, BreakerSnapshot, ConcurrencySnapshot
from scheduler.core.ticket import IN_FLIGHT, Ticket

# Verdicts that tell that an execution is over.
ANSWERED: Final = frozenset({Verdict.SUCCEEDED, Verdict.FAILED, Verdict.GARBLED})


class _Offer(NamedTuple):
    """The ready backends that serve a model, be their breakers open or not; sums and largest as in Outlook.

    `delayed`: whether one of them waits for executions to fill.
    """

    backends: tuple[Backend, ...]
    instances: int
    max_batch_size: int
    delayed: bool


class Fleet:
    """Backends by name and batches by number. Times in monotonic seconds.

    Args:
        hang_s: a batch with an instance is waited for this long at the least (breaker.py).
        outage_s: a missed backend is waited for this long.
    """

    __slots__ = (
        "_awaited",
        "_backends",
        "_batches",
        "_given_up",
        "_hang_s",
        "_last_batch_id",
        "_look_at",
        "_offers",
        "_opened",
        "_outage_s",
    )

    def __init__(self, hang_s: float, outage_s: float) -> None:
        self._hang_s = hang_s
        self._outage_s = outage_s
        self._backends: dict[str, Backend] = {}
        self._batches: dict[int, Batch] = {}
        self._given_up: set[int] = set()
        self._last_batch_id = 0
        self._look_at = inf
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
            self._backends[state.name] = Backend(state)
        else:
            backend.leaving = False
            if state.ready and not backend.state.ready:
                for breaker in backend.breakers.values():
                    breaker.retry_at = min(breaker.retry_at, now)
            backend.change(state, now=now)
        self._count_offers(now)

    def remove(self, name: str, *, now: float) -> None:
        """Let a backend go: nothing new is sent there, and it is forgotten when what it holds has ended.

        A model that no other one serves is waited for, as one that is missed: another may come in its place.
        """
        backend = self._backends.get(name)
        if backend is not None:
            backend.change(BackendState(name, ready=False, models={}), now=now)
            backend.leaving = True
            self._count_offers(now)

    def reconfigure(self, outage_s: float, *, now: float) -> None:
        """Go on with this setting, also for what is missed already."""
        self._outage_s = outage_s
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
                until = since + self._outage_s
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
        backends, instances, max_batch_size, _ = self._offers[model]
        if idle := self.idle_instances(model):
            return Outlook(now, now, idle, instances, max_batch_size)
        start_at = min([backend.open_at(model, now=now) for backend in backends])
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
        batch.patience_s = hangs_after_s(batch.estimate_s, known=estimator.knows(latency_key), hang_s=self._hang_s)
        if backend.breakers and (breaker := backend.breakers.get(lane.model)) is not None:
            batch.patience_s *= breaker.patience
            breaker.sent(batch.batch_id)
        backend.start(batch, into)
        self._batches[batch.batch_id] = batch
        if self._look_at == inf:
            self._look_at = now + self._hang_s
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
            self._look_at = inf
        if backend.leaving:
            self._forget_left()
        if verdict is Verdict.SUCCEEDED and ended is not None:
            lane = lanes[batch.tickets[0].lane]
            backend.note_end(batch, ended, now=now)
            learned_s = backend.estimator(batch.model, lane.estimator).learn(batch.latency_key, *ended)
            lane.estimator.add(batch.latency_key, ended.rows, learned_s)
            cost = cost_of(batch.tickets) if ended.rows == batch.rows else None
            lane.evidence.learn(batch.latency_key, ended.rows, cost, ended.service_s, now=now)
        return batch

    def give_up_hanging(self, *, now: float) -> list[Batch]:
        """Take out what hangs: a batch whose patience has ended, and what lies at its backend for the same model."""
        if now < self._look_at:
            return []
        hung = {(batch.backend, batch.model) for batch in self._batches.values() if batch.hangs_at <= now}
        lost = [batch for batch in self._batches.values() if (batch.backend, batch.model) in hung]
        for batch in lost:
            del self._batches[batch.batch_id]
            self._given_up.add(batch.batch_id)
            backend = self._backends[batch.backend]
            # Of every one: the probe may be among those that lie behind the one that hangs.
            why = f"no answer in {now - batch.began:.3g} s"
            backend.breaker(batch.model).failed(batch.batch_id, why, at_once=True, now=now)
            backend.finish(batch, now=now)
            self._note(backend)
        self._forget_left()
        ends = [batch.hangs_at for batch in self._batches.values()]
        self._look_at = min([*ends, now + self._hang_s]) if ends else inf
        return lost

    def tick(self, *, now: float) -> list[str]:
        """Let time pass; returns models for which a breaker lets a probe out now."""
        probing: list[str] = []
        for backend in self._opened.values():
            probing += backend.tick(now=now)
        return probing

    def next_wakeup(self) -> float:
        """When `give_up_hanging`, `given_up` or `tick` is due next; infinite: never."""
        at = min(self._look_at, *self._awaited.values()) if self._awaited else self._look_at
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
    )


def waited_for(batch: Batch) -> bool:
    """Whether anybody still waits for the batch's answer."""
    return any(ticket.state is IN_FLIGHT for ticket in batch.tickets)


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
    limit = backend.concurrency
    concurrency = ConcurrencySnapshot(
        limit.limit, backend.lesser(), limit.ratio, limit.gradient, limit.why, limit.moved_at
    )
    about = backend.name, backend.state.ready, backend.leaving
    return BackendSnapshot(*about, in_flight, backend.work_s(), breakers, concurrency)
