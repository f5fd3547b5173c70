"""The core: inputs change the state, events say what to do, and nothing here waits, sleeps or sends."""

from collections import deque
from collections.abc import Callable
from math import inf

from scheduler.core import batch as batching
from scheduler.core.admission import Admission, Refusal
from scheduler.core.backend import Backend, BackendState, Batch
from scheduler.core.caps import Tenant, Tenants
from scheduler.core.events import Abandon, Dispatch, Event, Evict, Reject
from scheduler.core.feasibility import feasible, in_time
from scheduler.core.fleet import Fleet, may_try_again, waited_for
from scheduler.core.heap import DeadlineHeap
from scheduler.core.lane import Lane, Turn, lane_name
from scheduler.core.limit import lead_s
from scheduler.core.model import model_snapshots
from scheduler.core.order import due
from scheduler.core.outcome import FINAL, Outcome, Verdict
from scheduler.core.pushback import Pushback
from scheduler.core.sequence import Sequence, Sequences
from scheduler.core.settings import CoreSettings
from scheduler.core.snapshot import ClassSnapshot, Snapshot, TenantSnapshot
from scheduler.core.ticket import ENDED, IN_FLIGHT, NEW, QUEUED, RETRYING, Ticket


class Scheduler:
    """Decides who is served, when, where and together with whom.

    Feed it with `submit`, `complete`, `cancel`, `set_backend`, `drain` and `tick`; after each, pull
    `next_event()` until it gives None, and call `tick` no later than `next_wakeup()`. Every `now` is
    in monotonic seconds and never goes back. Each submitted ticket ends exactly once.
    """

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._ranks = {settings.name: rank for rank, settings in enumerate(settings.classes)}
        self._tenants = Tenants(settings)
        self._admission = Admission(settings)
        self._pushbacks = [Pushback() for _ in settings.classes]
        self._deadlines = DeadlineHeap()
        self._lanes: dict[str, Lane] = {}
        self._fleet = Fleet(settings.hang_s)
        self._sequences = Sequences()
        # By stateful model: the lanes of its sequences, one for each backend that has had any.
        self._bound: dict[str, list[str]] = {}
        self._tickets: dict[int, Ticket] = {}
        self._events: deque[Event] = deque()
        # Lanes where something may have become possible since they were last looked at.
        self._runnable: dict[str, None] = {}
        # Lanes whose next batch is kept back until a batch of any model ends (concurrency.py).
        self._yielding: dict[str, None] = {}
        # Lanes whose next batch is kept back until a time.
        self._held: dict[str, float] = {}
        self._ended: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self._draining = False
        self._now = 0.0

    # ---- inputs

    def submit(self, ticket: Ticket, *, now: float) -> None:
        """Take in a new ticket: it is queued, or a Reject event says why not.

        Raises:
            ValueError: the class is not configured, the ticket was submitted before, or a step of a sequence has a
                merge key.
        """
        rank = self._ranks.get(ticket.priority_class)
        if rank is None:
            raise ValueError(f"unknown class {ticket.priority_class!r}; configured are {', '.join(self._ranks)}")
        if ticket.state is not NEW or ticket.ticket_id in self._tickets:
            raise ValueError(f"ticket {ticket.ticket_id} was submitted before")
        if ticket.step is not None and ticket.merge_key is not None:
            raise ValueError(f"ticket {ticket.ticket_id} is a step of a sequence, and those are not merged")
        self._advance(now)
        ticket.due = due(ticket, now=self._now)
        tenant = self._tenants.find(ticket.tenant, now=self._now)
        refusal = self._refusal(ticket, rank, tenant)
        if refusal is None and not self._admission.fits(ticket):
            self._displace(ticket, rank)
            # What was displaced may have been a step before this one, or all that its tenant had.
            refusal = self._gap(ticket)
            tenant = self._tenants.find(ticket.tenant, now=self._now)
        if refusal is None:
            self._enqueue(ticket, rank, tenant)
            return
        if ticket.step is not None:
            self._sequences.refused(ticket)
        self._finish(ticket, refusal.outcome)
        pushback_s = self._pushback(ticket, rank, refusal.outcome) if refusal.retry_s is None else refusal.retry_s
        self._events.append(Reject(ticket, refusal.outcome, pushback_s, refusal.detail))
        self._tenants.forget_idle(tenant, now=self._now)

    def complete(self, batch_id: int, verdict: Verdict, *, now: float) -> list[Ticket]:
        """A dispatched batch has ended at its backend.

        Returns:
            The tickets that ended with it. One that is not among them ended before, is answered by an event, or is
            dispatched once more, alone: after an error, so that only the guilty one fails; after the loss of the
            backend, where it was not sent twice already.

        Raises:
            ValueError: there is no such batch in flight.
        """
        self._now = max(self._now, now)
        batch = self._fleet.finish(batch_id, verdict, self._lanes, now=self._now)
        ended: list[Ticket] = []
        if batch is not None:
            self._wake(batch.model)
            if self._yielding:
                self._runnable |= self._yielding
            ended = self._end_batch(batch, verdict)
        # Last: an answer that is here is not thrown away for a deadline that came in the same moment.
        self._advance(now)
        return ended

    def cancel(self, ticket_id: int, *, now: float) -> None:
        """The caller has gone: a waiting ticket frees its place at once, one in flight when its batch ends.

        A batch that nobody waits for any more is abandoned. A ticket that has ended already is left alone.
        """
        self._advance(now)
        ticket = self._tickets.get(ticket_id)
        if ticket is None:
            return
        waited = ticket.waiting
        if waited:
            self._leave_queue(ticket)
        self._finish(ticket, Outcome.CANCELLED)
        self._deadlines.forget(ticket)
        if not waited:
            self._abandon_unless_waited_for(ticket)

    def set_backend(self, state: BackendState, *, now: float) -> None:
        """Report a backend, or a change of its readiness or of its models.

        When no ready backend offers a model any longer, its waiting tickets are evicted (NO_BACKEND).
        """
        self._advance(now)
        self._fleet.set_state(state, now=self._now)
        self._lose_sequences(state)
        for lane in list(self._lanes.values()):
            self._runnable[lane.name] = None
            if not self._fleet.offered(lane.model):
                self._evict_all(lane)

    def drain(self, *, now: float) -> None:
        """Refuse every ticket from now on; those that were accepted are served."""
        self._advance(now)
        self._draining = True

    def reconfigure(self, settings: CoreSettings, *, now: float) -> None:
        """Go on with these settings of classes and tenants. No ticket is dropped, also where a bound is now exceeded.

        Raises:
            ValueError: the classes are not those of before, in the same order.
        """
        before, after = ([each.name for each in some.classes] for some in (self._settings, settings))
        if after != before:
            raise ValueError(f"classes: expected {', '.join(before)} as before, got {', '.join(after)}")
        self._advance(now)
        self._settings = settings
        self._admission.reconfigure(settings)
        retrying = (ticket for ticket in self._tickets.values() if ticket.state is RETRYING)
        self._tenants.reconfigure(settings, [*self._fleet.held(), *retrying])
        for lane in self._lanes.values():
            lane.reconfigure(settings.classes)
            self._runnable[lane.name] = None
        for tenant in self._tenants.all():
            self._unpark(tenant)

    def tick(self, *, now: float) -> None:
        """Let time pass: what has expired is evicted, and what was kept back until now may go."""
        self._advance(now)

    # ---- outputs

    def next_event(self) -> Event | None:
        """The next thing to do, or None until the next input.

        Batches are formed here and not in `submit`, so tickets that are submitted together can ride together.
        """
        if self._events:
            return self._events.popleft()
        while self._runnable:
            name = next(iter(self._runnable))
            del self._runnable[name]
            dispatch = self._dispatch(name)
            if dispatch is not None:
                # Back to the end of the line: lanes take turns while each has places.
                self._runnable[name] = None
                return dispatch
            if self._events:  # whoever could not end in time
                return self._events.popleft()
        return None

    def next_wakeup(self) -> float | None:
        """When to call `tick` at the latest (monotonic seconds), or None."""
        deadline, at = self._deadlines.next_deadline(), self._fleet.next_wakeup()
        if deadline is not None and deadline < at:
            at = deadline
        if self._held:
            at = min(at, *self._held.values())
        return None if at == inf else at

    def batch(self, batch_id: int) -> Batch | None:
        """A batch in flight, to look at; None for one that was given up."""
        return self._fleet.batch(batch_id)

    @property
    def idle(self) -> bool:
        """Whether no ticket waits and no batch is in flight."""
        return not self._tickets and self._fleet.idle

    def snapshot(self, *, now: float | None = None) -> Snapshot:
        """The state; `now` is for what passes with time alone, None: the time of the last input."""
        at = self._now if now is None else max(self._now, now)
        return Snapshot(
            queued=self._admission.queued,
            queue_bytes=self._admission.queue_bytes,
            in_flight=self._fleet.riders,
            classes=tuple(
                ClassSnapshot(settings.name, self._admission.by_class[rank], self._pushbacks[rank].base_s(now=at))
                for rank, settings in enumerate(self._settings.classes)
            ),
            tenants=tuple(
                TenantSnapshot(t.name, t.queued, t.in_flight, t.queue_bytes, t.held.rows) for t in self._tenants.all()
            ),
            models=model_snapshots(
                self._lanes.values(), self._sequences, [each.name for each in self._settings.classes]
            ),
            backends=self._fleet.snapshot(),
            ended={outcome.name: count for outcome, count in self._ended.items()},
        )

    # ---- arrival

    def _refusal(self, ticket: Ticket, rank: int, tenant: Tenant) -> Refusal | None:
        if self._draining:
            return Refusal(Outcome.DRAINING)
        if ticket.deadline is not None and ticket.deadline <= self._now:
            return Refusal(Outcome.DEADLINE_EXPIRED)
        if not self._fleet.offered(ticket.model):
            return Refusal(Outcome.NO_BACKEND)
        refusal = None if ticket.step is None else self._gap(ticket)
        if refusal is None:
            refusal = self._admission.refusal(ticket, rank, tenant, now=self._now)
        if refusal is None and ticket.deadline is not None and not self._feasible(ticket, rank, tenant):
            return Refusal(Outcome.DEADLINE_INFEASIBLE)
        return refusal

    def _lane_of_step(self, ticket: Ticket) -> str:
        sequence = self._sequences.of(ticket)
        return lane_name(ticket.model, "" if sequence is None else sequence.backend)

    def _feasible(self, ticket: Ticket, rank: int, tenant: Tenant) -> bool:
        lane = self._lanes.get(ticket.model if ticket.step is None else self._lane_of_step(ticket))
        if lane is None:
            return True
        outlook = self._fleet.outlook(ticket.model, now=self._now)
        return feasible(lane, lane.classes[rank], tenant, ticket, outlook)

    def _displace(self, ticket: Ticket, rank: int) -> None:
        """Evict the lesser tickets in whose place an arrival enters."""
        while (displaced := self._admission.in_the_way(ticket, rank)) is not None:
            self._evict(displaced, Outcome.DISPLACED)
            self._deadlines.forget(displaced)

    def _enqueue(self, ticket: Ticket, rank: int, tenant: Tenant) -> None:
        self._admission.book(ticket, rank, tenant, now=self._now)
        self._tickets[ticket.ticket_id] = ticket
        if ticket.deadline is not None:
            self._deadlines.push(ticket)
        if ticket.step is not None:
            self._join_sequence(ticket, tenant)
            return
        lane = self._lanes.get(ticket.model)
        if lane is None:
            lane = self._lanes[ticket.model] = Lane(ticket.model, self._settings.classes)
        lane.push(ticket, rank, tenant)
        self._runnable[ticket.model] = None

    def _pushback(self, ticket: Ticket, rank: int, outcome: Outcome) -> float | None:
        """When the caller may come again; None where coming again cannot help."""
        if outcome in FINAL:
            return None
        return self._pushbacks[rank].refused(ticket.ticket_id, now=self._now)

    # ---- service

    def _dispatch(self, name: str) -> Dispatch | None:
        lane = self._lanes.get(name)
        self._held.pop(name, None)
        if self._yielding:
            self._yielding.pop(name, None)
        if lane is None or not (able := self._fleet.able(lane.model)):
            return None
        if lane.backend and not (able := [each for each in able if each.name == lane.backend]):
            return None
        while (turn := lane.next_turn()) is not None:
            backend = able[0] if lane.backend else self._fleet.place(able, lane, turn.ticket)
            if backend is None:
                return None
            late = self._late(lane, backend, turn.ticket.merge_key) if self._deadlines.watches else _never
            if not late(turn.ticket):
                return None if self._hold(lane, turn, backend) else self._send(lane, turn, backend, late)
        return None

    def _send(self, lane: Lane, turn: Turn, backend: Backend, late: Callable[[Ticket], bool]) -> Dispatch:
        estimator = backend.estimator(lane.model, lane.estimator)
        tickets = tuple(batching.form(lane, turn, backend.state.models[lane.model], estimator, late))
        release, ranks = self._admission.release, self._ranks
        for ticket in tickets:
            if ticket.state is RETRYING:  # holds no place in admission
                ticket.state = IN_FLIGHT
            else:
                release(ticket, ranks[ticket.priority_class])
        batch = self._fleet.start(lane, backend, tickets, turn.queue, now=self._now)
        return Dispatch(batch.batch_id, backend.name, tickets)

    def _late(self, lane: Lane, backend: Backend, merge_key: str | None) -> Callable[[Ticket], bool]:
        """What evicts a ticket of this key, and tells so, where it would end late if it went there next."""
        start_at = self._now
        if not backend.has_idle_instance(lane.model):
            start_at = max(start_at, backend.next_free_at(lane.model))
        capacity = backend.state.models[lane.model]
        estimator = backend.estimator(lane.model, lane.estimator)
        max_batch_size = max(1, capacity.max_batch_size)
        line = estimator.line(merge_key)
        # By then even a full batch has ended.
        full_at = start_at + line.predict(max_batch_size)

        def late(ticket: Ticket) -> bool:
            if ticket.deadline is None or (ticket.deadline >= full_at and ticket.rows <= max_batch_size):
                return False
            alone = ticket.state is RETRYING
            beside = 0 if alone else sum(queue.waiting_of(merge_key) for queue in lane.classes)
            queue = lane.classes[self._ranks[ticket.priority_class]]
            rows = max(ticket.rows, min(batching.most_rows(queue, capacity, estimator, merge_key), beside))
            if in_time(line, rows, ticket.deadline, start_at):
                return False
            self._evict(ticket, Outcome.DEADLINE_INFEASIBLE)
            self._deadlines.forget(ticket)
            return True

        return late

    def _hold(self, lane: Lane, turn: Turn, backend: Backend) -> bool:
        """Whether the next batch could be overtaken, and is therefore kept back.

        That is where it would only lie ready (limit.py), or slow down a more important model (concurrency.py).
        """
        above_s, own_s = turn.queue.above_wait_s, turn.queue.own_wait_s
        known = backend.estimator(lane.model, lane.estimator).knows(None)
        if above_s is None and (own_s is None or not known):
            return False
        if backend.crowded(lane.model, turn.queue.rank, now=self._now):
            self._yielding[lane.name] = None
            return True
        if backend.has_idle_instance(lane.model):
            return False
        wait_s = min(each for each in (above_s, own_s) if each is not None)
        leave_at = backend.next_free_at(lane.model) - lead_s(wait_s)
        if leave_at <= self._now:
            return False
        self._held[lane.name] = leave_at
        return True

    # ---- endings

    def _end_batch(self, batch: Batch, verdict: Verdict) -> list[Ticket]:
        again, ended = [], []
        succeeded, lost = verdict is Verdict.SUCCEEDED, verdict is Verdict.LOST
        outcome = Outcome.COMPLETED if succeeded else Outcome.FAILED
        for ticket in batch.tickets:
            if ticket.state is not IN_FLIGHT:
                self._release(ticket)
            elif not succeeded and may_try_again(ticket, batch, verdict):
                again.append(ticket)
            else:
                self._release(ticket)
                if ticket.deadline is not None:
                    self._deadlines.forget(ticket)
                if lost:
                    self._end_with_event(ticket, Outcome.BACKEND_LOST)
                    continue
                self._finish(ticket, outcome)
                ended.append(ticket)
        if again:
            self._retry(again, self._lanes[batch.model])
        if (step := batch.tickets[0]).step is not None:
            self._leave_sequence(step, answered=succeeded or verdict is Verdict.FAILED)
        return ended

    def _retry(self, tickets: list[Ticket], lane: Lane) -> None:
        """Try each of these tickets alone; they keep their places in flight meanwhile."""
        for ticket in tickets:
            lane.retry(ticket, self._ranks[ticket.priority_class])
        self._runnable[lane.model] = None
        if not self._fleet.offered(lane.model):
            self._evict_all(lane)

    def _abandon_unless_waited_for(self, ticket: Ticket) -> None:
        """Withdraw the batch that the ticket has left, where it was the last that waited for it."""
        batch = self._fleet.batch_of(ticket)
        if batch is not None and not waited_for(batch):
            self._abandon(batch)

    def _abandon(self, batch: Batch) -> None:
        """Have the driver end the batch's call, once: a batch that was withdrawn may hang before its call has ended."""
        if not batch.abandoned:
            batch.abandoned = True
            self._events.append(Abandon(batch.batch_id))

    def _advance(self, now: float) -> None:
        """Move the clock, evict what has expired, and look again at what was kept back until now."""
        self._now = max(self._now, now)
        if self._held:
            for name in [name for name, leave_at in self._held.items() if leave_at <= self._now]:
                del self._held[name]
                self._runnable[name] = None
        while (ticket := self._deadlines.pop_due(now=self._now)) is not None:
            self._expire(ticket)
        for model in self._fleet.tick(now=self._now):
            self._wake(model)
        for batch in self._fleet.give_up_hanging(now=self._now):
            self._abandon(batch)
            self._end_batch(batch, Verdict.LOST)
            # Its place is free, and nothing else may come to say so.
            self._wake(batch.model)
            self._runnable |= self._yielding

    def _expire(self, ticket: Ticket) -> None:
        """Answer a ticket whose deadline has come; in flight it frees its place when its batch ends."""
        if ticket.waiting:
            self._evict(ticket, Outcome.DEADLINE_EXPIRED)
            return
        self._end_with_event(ticket, Outcome.DEADLINE_EXPIRED)
        self._abandon_unless_waited_for(ticket)

    def _evict_all(self, lane: Lane) -> None:
        for ticket in list(lane.waiting()):
            self._evict(ticket, Outcome.NO_BACKEND)
            self._deadlines.forget(ticket)

    def _evict(self, ticket: Ticket, outcome: Outcome) -> None:
        self._leave_queue(ticket)
        self._end_with_event(ticket, outcome)

    def _end_with_event(self, ticket: Ticket, outcome: Outcome) -> None:
        self._finish(ticket, outcome)
        pushback_s = self._pushback(ticket, self._ranks[ticket.priority_class], outcome)
        self._events.append(Evict(ticket, outcome, pushback_s))

    def _leave_queue(self, ticket: Ticket) -> None:
        """Free the place of a waiting ticket that will not be served."""
        if ticket.lane in self._held:  # it may be the turn of one that is not held now
            self._runnable[ticket.lane] = None
        if ticket.state is RETRYING:
            self._release(ticket)
            return
        tenant = _holder(ticket)
        rank = self._ranks[ticket.priority_class]
        if ticket.step is not None and not self._is_current(ticket):
            _count_behind(ticket, -1)
            ticket.state = ENDED
        else:
            self._lanes[ticket.lane].classes[rank].remove(ticket)
            self._runnable[ticket.lane] = None
        self._admission.release(ticket, rank)
        self._tenants.forget_idle(tenant, now=self._now)

    def _release(self, ticket: Ticket) -> None:
        """Give back the ticket's places in flight, and let flows of its tenant that were at a cap come back."""
        tenant = _holder(ticket)
        tenant.release(ticket)
        if tenant.parked:
            self._unpark(tenant)
        if not tenant.queued and not tenant.held.tickets:
            self._tenants.forget_idle(tenant, now=self._now)

    def _unpark(self, tenant: Tenant) -> None:
        for flow in tenant.unblocked():
            flow.unpark()
            self._runnable[flow.owner.lane] = None

    def _finish(self, ticket: Ticket, outcome: Outcome) -> None:
        was_new = ticket.state is NEW
        ticket.state = ENDED
        self._tickets.pop(ticket.ticket_id, None)
        self._ended[outcome] += 1
        if ticket.step is not None and not was_new:
            self._end_step(ticket, outcome)

    # ---- stateful sequences (sequence.py)

    def _gap(self, ticket: Ticket) -> Refusal | None:
        """Why a step of a sequence may not come now; None for any other ticket."""
        if ticket.step is None:
            return None
        return self._sequences.refusal(ticket, self._settings.max_sequences, now=self._now)

    def _is_current(self, ticket: Ticket) -> bool:
        """Whether a step stands in its lane, and not behind another step."""
        sequence = self._sequences.of(ticket)
        return sequence is not None and sequence.current is ticket

    def _join_sequence(self, ticket: Ticket, tenant: Tenant) -> None:
        ticket.state = QUEUED
        ticket.holder = tenant
        if self._sequences.join(ticket, now=self._now):
            self._enter_lane(ticket)
        else:
            _count_behind(ticket, 1)

    def _enter_lane(self, ticket: Ticket) -> None:
        """Queue a step whose turn has come in its sequence; a start is given its backend here."""
        sequence = self._sequences.of(ticket)
        assert sequence is not None
        if not sequence.backend:
            self._sequences.bind(sequence, self._fleet.home(ticket.model, self._sequences.by_backend(ticket.model)))
        ticket.lane = lane_name(ticket.model, sequence.backend)
        lane = self._lanes.get(ticket.lane)
        if lane is None:
            lane = self._lanes[ticket.lane] = Lane(ticket.model, self._settings.classes, sequence.backend)
            self._bound.setdefault(ticket.model, []).append(ticket.lane)
        lane.push(ticket, self._ranks[ticket.priority_class], _holder(ticket))
        self._runnable[ticket.lane] = None

    def _end_step(self, ticket: Ticket, outcome: Outcome) -> None:
        """A step that was accepted has ended: what comes after a gap is lost."""
        if outcome is not Outcome.COMPLETED and outcome is not Outcome.FAILED:
            self._evict_lost(self._sequences.unanswered(ticket))
            if not ticket.batch_id:  # else its place is free when its batch ends
                self._leave_sequence(ticket, answered=False)

    def _leave_sequence(self, ticket: Ticket, *, answered: bool) -> None:
        """The sequence's current step is gone from the queue or from the backend: the next may come."""
        if not answered:
            self._evict_lost(self._sequences.unanswered(ticket))
        following = self._sequences.leave(ticket, answered=answered, now=self._now)
        if following is not None:
            _count_behind(following, -1)
            self._enter_lane(following)

    def _lose_sequences(self, state: BackendState) -> None:
        """Whose state was at a backend that does not serve it any more is lost, up to the next start."""
        for sequence in list(self._sequences):
            model = sequence.model
            if sequence.backend in ("", state.name) and not (state.ready and model in state.models):
                self._lose(sequence, everything=not self._fleet.offered(model))

    def _lose(self, sequence: Sequence, *, everything: bool) -> None:
        self._sequences.bind(sequence, "")
        self._evict_lost(sequence.lose(everything=everything))
        if sequence.current is not None and sequence.current.state is QUEUED:
            self._evict_lost([sequence.current])

    def _evict_lost(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            self._evict(ticket, Outcome.SEQUENCE_LOST)
            self._deadlines.forget(ticket)

    def _wake(self, model: str) -> None:
        """Something may have become possible for the model."""
        self._runnable[model] = None
        if self._bound:
            self._runnable |= dict.fromkeys(self._bound.get(model, ()))


def _never(ticket: Ticket) -> bool:
    """No ticket can be late where none has a deadline."""
    return False


def _count_behind(ticket: Ticket, sign: int) -> None:
    """Count a step that waits behind another of its sequence, and so in no lane, for its tenant."""
    tenant = _holder(ticket)
    tenant.queued += sign
    tenant.queue_bytes += sign * ticket.queue_bytes


def _holder(ticket: Ticket) -> Tenant:
    """Whom a ticket that was queued counts for."""
    assert ticket.holder is not None
    return ticket.holder
