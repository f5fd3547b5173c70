"""The core: inputs change the state, events say what to do, and nothing here waits, sleeps or sends."""

from math import inf

from scheduler.core.admission.bounds import Admission
from scheduler.core.arrivals import Arrivals
from scheduler.core.backends.backend import BackendState, Batch
from scheduler.core.backends.fleet import Fleet
from scheduler.core.backends.patience import GONE, SILENT, Patience, Statement
from scheduler.core.dispatcher import Dispatcher
from scheduler.core.endings import Endings
from scheduler.core.events import Event
from scheduler.core.model import model_snapshots
from scheduler.core.outcome import Verdict
from scheduler.core.queues.lanes import Lanes
from scheduler.core.queues.order import due
from scheduler.core.sequences.steps import Steps
from scheduler.core.settings import CoreSettings
from scheduler.core.snapshot import ClassSnapshot, Snapshot, TenantSnapshot
from scheduler.core.tenants.caps import Tenants
from scheduler.core.ticket import NEW, RETRYING, Ticket


class Scheduler:
    """Decides who is served, when, where and together with whom.

    Feed it with `submit`, `complete`, `cancel`, `set_backend`, `drain` and `tick`; after each, pull
    `next_event()` until it gives None, and call `tick` no later than `next_wakeup()`. Every `now` is
    in monotonic seconds and never goes back. Each submitted ticket ends exactly once.
    """

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._ranks = settings.ranks()
        self._tenants = Tenants(settings)
        self._admission = Admission(settings)
        self._lanes = Lanes(settings.classes)
        self._patience = Patience(settings.hang_s, settings.outage_s, settings.model_hang_s)
        self._fleet = Fleet(self._patience)
        self._fleet.bound(settings.model_in_flight)
        self._steps = Steps(settings, self._lanes, self._fleet)
        parts = self._lanes, self._fleet, self._admission
        self._endings = Endings(settings, *parts, self._tenants, self._steps)
        self._arrivals = Arrivals(*parts, self._tenants, self._steps, self._endings)
        self._dispatcher = Dispatcher(settings, *parts, self._steps, self._endings)
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
        if ticket.state is not NEW or ticket.ticket_id in self._endings.tickets:
            raise ValueError(f"ticket {ticket.ticket_id} was submitted before")
        if ticket.step is not None and ticket.merge_key is not None:
            raise ValueError(f"ticket {ticket.ticket_id} is a step of a sequence, and those are not merged")
        self._advance(now)
        ticket.due = due(ticket, now=self._now)
        self._arrivals.take_in(ticket, rank, now=self._now)

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
        batch = self._fleet.finish(batch_id, verdict, self._lanes.by_name, now=self._now)
        ended: list[Ticket] = []
        if batch is not None:
            self._lanes.wake(batch.model)
            self._lanes.wake_yielding()
            ended = self._endings.end_batch(batch, verdict, now=self._now)
            if verdict is Verdict.SUCCEEDED:
                self._lanes.of(batch.model).answered(batch.tickets, self._ranks, now=self._now)
        # Last: an answer that is here is not thrown away for a deadline that came in the same moment.
        self._advance(now)
        return ended

    def cancel(self, ticket_id: int, *, now: float) -> None:
        """The caller has gone: a waiting ticket frees its place at once, one in flight when its batch ends.

        A batch that nobody waits for any more is abandoned. A ticket that has ended already is left alone.
        """
        self._advance(now)
        ticket = self._endings.tickets.get(ticket_id)
        if ticket is not None:
            self._endings.cancel(ticket, now=self._now)

    def set_backend(self, state: BackendState, *, now: float) -> None:
        """Report a backend, or a change of its readiness or of its models.

        When no backend offers a model any longer, its waiting tickets are evicted (NO_BACKEND); one that is missed
        offers what it did for `outage_s`.
        """
        self._advance(now)
        self._fleet.set_state(state, now=self._now)
        self._endings.evict_lost(self._steps.lose(state), now=self._now)
        for lane in list(self._lanes):
            self._lanes.runnable[lane.name] = None
        self._evict_unoffered()

    def remove_backend(self, name: str, *, now: float) -> None:
        """Let a backend go: nothing new is sent there, what is in flight ends, and the states of sequences are lost."""
        self._advance(now)
        self._fleet.remove(name, now=self._now)
        gone = BackendState(name, ready=False, models={})
        self._endings.evict_lost(self._steps.lose(gone), now=self._now)
        # Backends may come and go without end; one that still holds something is looked at when the next one goes.
        self._lanes.forget_gone(self._fleet.names())
        for lane in list(self._lanes):
            self._lanes.runnable[lane.name] = None
        self._evict_unoffered()

    def hear_of(self, batch_id: int, *, now: float) -> bool:
        """A part of a batch's answer has come: it works. Whether that makes an event possible."""
        self._now = max(self._now, now)
        model = self._fleet.hear_of(batch_id, now=self._now)
        if model is not None:
            self._lanes.wake(model)
        return model is not None

    def testify(self, batch_id: int, statement: Statement, *, now: float) -> None:
        """What the backend said of an overdue batch's model (Inquire): where it is gone, its tickets go elsewhere."""
        self._advance(now)
        batch = self._fleet.batch(batch_id)
        verdict = self._fleet.testify(batch_id, statement, now=self._now)
        if batch is not None and verdict is not None:
            self._endings.tell(batch, GONE, now=self._now)
            self._endings.abandon(batch)
            self._take_out(batch, verdict)

    def drain(self, *, now: float) -> None:
        """Refuse every ticket from now on; those that were accepted are served."""
        self._advance(now)
        self._arrivals.draining = True

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
        self._steps.reconfigure(settings)
        self._patience.reconfigure(settings.hang_s, settings.outage_s, settings.model_hang_s, now=self._now)
        self._fleet.reconfigure(now=self._now)
        self._fleet.bound(settings.model_in_flight)
        self._evict_unoffered()
        retrying = (ticket for ticket in self._endings.tickets.values() if ticket.state is RETRYING)
        self._tenants.reconfigure(settings, [*self._fleet.held(), *retrying])
        self._lanes.reconfigure(settings.classes)
        for tenant in self._tenants.all():
            self._endings.unpark(tenant)

    def tick(self, *, now: float) -> None:
        """Let time pass: what has expired is evicted, and what was kept back until now may go."""
        self._advance(now)

    # ---- outputs

    def next_event(self) -> Event | None:
        """The next thing to do, or None until the next input.

        Batches are formed here and not in `submit`, so tickets that are submitted together can ride together.
        """
        events, runnable = self._endings.events, self._lanes.runnable
        if events:
            return events.popleft()
        while runnable:
            name = next(iter(runnable))
            del runnable[name]
            dispatch = self._dispatcher.dispatch(name, now=self._now)
            if dispatch is not None:
                # Back to the end of the line: lanes take turns while each has places.
                runnable[name] = None
                return dispatch
            if events:  # whoever could not end in time
                return events.popleft()
        return None

    def next_wakeup(self) -> float | None:
        """When to call `tick` at the latest (monotonic seconds), or None."""
        deadline, at = self._endings.deadlines.next_deadline(), self._fleet.next_wakeup()
        if deadline is not None and deadline < at:
            at = deadline
        if self._steps.short:
            at = min(at, self._steps.next_wakeup())
        if policies := self._admission.policies:
            at = min(at, policies.next_due())
        if held := self._lanes.held:
            at = min(at, *held.values())
        return None if at == inf else at

    def batch(self, batch_id: int) -> Batch | None:
        """A batch in flight, to look at; None for one that was given up."""
        return self._fleet.batch(batch_id)

    def offers(self, model: str) -> bool:
        """Whether a ticket of the model may wait: a backend serves it, or one is missed that did."""
        return self._fleet.offered(model)

    @property
    def queued(self) -> int:
        """Tickets that wait, over all models."""
        return self._admission.queued

    @property
    def idle(self) -> bool:
        """Whether no ticket waits and no batch is in flight."""
        return not self._endings.tickets and self._fleet.idle

    def snapshot(self, *, now: float | None = None) -> Snapshot:
        """The state; `now` is for what passes with time alone, None: the time of the last input."""
        at = self._now if now is None else max(self._now, now)
        return Snapshot(
            queued=self._admission.queued,
            queue_bytes=self._admission.queue_bytes,
            in_flight=self._fleet.riders,
            classes=tuple(
                ClassSnapshot(
                    settings.name,
                    self._admission.by_class[rank],
                    self._admission.bytes_by_class[rank],
                    self._endings.pushbacks[rank].base_s(now=at),
                )
                for rank, settings in enumerate(self._settings.classes)
            ),
            tenants=tuple(
                TenantSnapshot(t.name, t.queued, t.in_flight, t.queue_bytes, t.held.rows) for t in self._tenants.all()
            ),
            models=model_snapshots(
                self._lanes,
                self._steps.sequences,
                self._fleet.held(),
                [each.name for each in self._settings.classes],
            ),
            backends=self._fleet.snapshot(),
            ended={outcome.name: count for outcome, count in self._endings.ended.items()},
        )

    def _advance(self, now: float) -> None:
        """Move the clock, end what has expired or hangs, and look again at what was kept back until now."""
        if now > self._now:
            self._now = now
        now = self._now
        if self._lanes.held:
            self._lanes.wake_held(now=now)
        while (ticket := self._endings.deadlines.pop_due(now=now)) is not None:
            self._endings.expire(ticket, now=now)
        if policies := self._admission.policies:
            while (ticket := policies.pop_due(now=now)) is not None:
                self._endings.time_out(ticket, now=now)
        if self._steps.short:
            self._steps.look_for_slots(now=now)
        if self._fleet.next_wakeup() <= now:
            self._look_at_fleet(now)

    def _look_at_fleet(self, now: float) -> None:
        """Let out what probes a backend, and look for backends and batches that are waited for no longer."""
        for model in self._fleet.tick(now=now):
            self._lanes.wake(model)
        if self._fleet.given_up(now=now):
            self._evict_unoffered()
        overdue, given_up = self._fleet.look(now=now)
        for batch, why in given_up:
            self._endings.give_up(batch, why, now=now)
            if why == SILENT:
                self._take_out(batch, Verdict.ABANDONED)
        for batch in overdue:
            self._endings.inquire(batch, now=now)

    def _take_out(self, batch: Batch, verdict: Verdict) -> None:
        """End a batch whose call may never end; its place is free, and nothing else may come to say so."""
        self._fleet.take_out(batch, now=self._now)
        self._endings.end_batch(batch, verdict, now=self._now)
        self._lanes.wake(batch.model)
        self._lanes.wake_yielding()

    def _evict_unoffered(self) -> None:
        """End what waits for a model that no backend is expected to serve."""
        self._endings.evict_lost(self._steps.lose_unoffered(), now=self._now)
        for lane in list(self._lanes):
            if not self._fleet.offered(lane.model):
                self._endings.evict_all(lane, now=self._now)
