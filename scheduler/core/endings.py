"""How tickets end: each once, with one outcome of the closed list, and nothing of what it held is left behind.

A ticket that waits frees its place at once; one in flight is answered at once too, but its places at the backend are
free when its batch ends: until then an instance works for it. A batch that nobody waits for any more is abandoned.
What a ticket's end makes possible for others is looked at in its turn (lanes.py).
"""

from collections import deque

from scheduler.core.admission.bounds import Admission, Refusal
from scheduler.core.admission.pushback import Pushback
from scheduler.core.backends.backend import Batch
from scheduler.core.backends.fleet import Fleet, may_try_again
from scheduler.core.events import Abandon, Event, Evict, GiveUp, Inquire, Reject
from scheduler.core.outcome import FINAL, Outcome, Verdict
from scheduler.core.queues.heap import DeadlineHeap
from scheduler.core.queues.lane import Lane
from scheduler.core.queues.lanes import Lanes
from scheduler.core.sequences.steps import Steps, count_behind
from scheduler.core.settings import CoreSettings
from scheduler.core.tenants.caps import Tenant, Tenants, holder_of
from scheduler.core.ticket import ENDED, IN_FLIGHT, RETRYING, Ticket


class Endings:
    """The tickets that have not ended, and the ends of the others. `now` is in monotonic seconds.

    Attributes:
        tickets: those that have not ended, by number.
        deadlines: theirs.
        events: what the driver has to be told.
        ended: tickets by outcome.
        pushbacks: by class rank.
    """

    __slots__ = (
        "_admission",
        "_fleet",
        "_lanes",
        "_ranks",
        "_steps",
        "_tenants",
        "deadlines",
        "ended",
        "events",
        "pushbacks",
        "tickets",
    )

    def __init__(
        self, settings: CoreSettings, lanes: Lanes, fleet: Fleet, admission: Admission, tenants: Tenants, steps: Steps
    ) -> None:
        self._ranks = settings.ranks()
        self._lanes = lanes
        self._fleet = fleet
        self._admission = admission
        self._tenants = tenants
        self._steps = steps
        self.tickets: dict[int, Ticket] = {}
        self.deadlines = DeadlineHeap()
        self.events: deque[Event] = deque()
        self.ended: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        self.pushbacks = [Pushback() for _ in settings.classes]

    def refuse(self, ticket: Ticket, refusal: Refusal, *, now: float) -> None:
        """End a ticket on arrival, and tell when it may come again."""
        if ticket.step is not None:
            self._steps.sequences.refused(ticket)
        ticket.state = ENDED
        outcome = refusal.outcome
        self.ended[outcome] += 1
        pushback_s = self._pushback_s(ticket, outcome, now) if refusal.retry_s is None else refusal.retry_s
        self.events.append(Reject(ticket, outcome, pushback_s, refusal.detail))

    def cancel(self, ticket: Ticket, *, now: float) -> None:
        """End a ticket whose caller has gone."""
        waited = ticket.waiting
        if waited:
            self._leave_queue(ticket, now)
        self._finish(ticket, Outcome.CANCELLED, now)
        self.deadlines.forget(ticket)
        if not waited:
            self._abandon_unless_waited_for(ticket)

    def expire(self, ticket: Ticket, *, now: float) -> None:
        """End a ticket whose deadline has come."""
        waited = ticket.waiting
        if waited:
            self._leave_queue(ticket, now)
        self._tell(ticket, Outcome.DEADLINE_EXPIRED, now)
        if not waited:
            self._abandon_unless_waited_for(ticket)

    def time_out(self, ticket: Ticket, *, now: float) -> None:
        """A ticket has waited for as long as its model's queue policy lets it (queue_policy.py)."""
        if ticket.policy is not None and ticket.policy.delays:
            ticket.delayed = True
        else:
            self.evict(ticket, Outcome.QUEUE_TIMEOUT, now=now)

    def evict(self, ticket: Ticket, outcome: Outcome, *, now: float) -> None:
        """End a ticket that waits."""
        self._leave_queue(ticket, now)
        self._tell(ticket, outcome, now)
        self.deadlines.forget(ticket)

    def evict_all(self, lane: Lane, *, now: float) -> None:
        """End every ticket of a lane that no backend serves any longer."""
        for ticket in list(lane.waiting()):
            self.evict(ticket, Outcome.NO_BACKEND, now=now)

    def evict_lost(self, tickets: list[Ticket], *, now: float) -> None:
        """End steps that would come after a gap in their sequence."""
        for ticket in tickets:
            self.evict(ticket, Outcome.SEQUENCE_LOST, now=now)

    def end_batch(self, batch: Batch, verdict: Verdict, *, now: float) -> list[Ticket]:
        """End the tickets of a batch that has ended, but for those that are tried again.

        Returns:
            The tickets that no event tells of.
        """
        again: list[Ticket] = []
        ended: list[Ticket] = []
        succeeded, lost = verdict is Verdict.SUCCEEDED, verdict is Verdict.LOST or verdict is Verdict.UNREACHED
        outcome = Outcome.COMPLETED if succeeded else Outcome.FAILED
        # What a backend took that was lost, or said that it does not serve, is nobody's.
        row_s = (
            0.0 if lost or verdict is Verdict.UNAVAILABLE else (now - batch.began) / max(1, batch.rows, batch.run_rows)
        )
        for ticket in batch.tickets:
            if ticket.charge is not None:
                ticket.charge.settle(ticket.rows * row_s, now=now)
            if ticket.state is not IN_FLIGHT:
                self._release(ticket, now)
            elif not succeeded and may_try_again(ticket, batch, verdict):
                again.append(ticket)
            else:
                self._release(ticket, now)
                if ticket.deadline is not None:
                    self.deadlines.forget(ticket)
                if lost:
                    self._tell(ticket, Outcome.BACKEND_LOST, now)
                    continue
                self._finish(ticket, outcome, now)
                ended.append(ticket)
        if again:
            self._retry(again, self._lanes.of(batch.model), now)
        if (step := batch.tickets[0]).step is not None:
            answered = succeeded or verdict is Verdict.FAILED
            self.evict_lost(self._steps.leave(step, answered=answered, now=now), now=now)
        return ended

    def abandon(self, batch: Batch) -> None:
        """Have the driver end the batch's call, once: one that was withdrawn may be taken out before it has ended."""
        if not batch.abandoned:
            batch.abandoned = True
            self.events.append(Abandon(batch.batch_id))

    def inquire(self, batch: Batch, *, now: float) -> None:
        """Have the driver ask about an overdue batch."""
        about = batch.batch_id, batch.backend, batch.model, batch.tickets
        self.events.append(Inquire(*about, batch.asked > 1, now - batch.heard_at, batch.estimate_s))

    def tell(self, batch: Batch, why: str, *, now: float) -> None:
        """Have the driver tell that a batch is given up, where that is anybody's loss."""
        if batch.wanted:
            about = batch.batch_id, batch.backend, batch.model, batch.tickets
            self.events.append(GiveUp(*about, why, now - batch.heard_at, batch.estimate_s))

    def give_up(self, batch: Batch, why: str, *, now: float) -> None:
        """End the tickets of a batch that is waited for no longer; its place is free when its call has ended."""
        self.tell(batch, why, now=now)
        for ticket in batch.tickets:
            if ticket.state is IN_FLIGHT:
                if ticket.deadline is not None:
                    self.deadlines.forget(ticket)
                self._tell(ticket, Outcome.BACKEND_LOST, now)
        self.abandon(batch)

    def unpark(self, tenant: Tenant) -> None:
        """Let the tenant's flows that were at a cap come back where there is room."""
        for flow in tenant.unblocked():
            flow.unpark()
            self._lanes.runnable[flow.lane] = None

    def _retry(self, tickets: list[Ticket], lane: Lane, now: float) -> None:
        """Try each of these tickets alone; they keep their places in flight meanwhile."""
        for ticket in tickets:
            lane.retry(ticket, self._ranks[ticket.priority_class])
        self._lanes.runnable[lane.name] = None
        if not self._fleet.offered(lane.model):
            self.evict_all(lane, now=now)

    def _abandon_unless_waited_for(self, ticket: Ticket) -> None:
        """Withdraw the batch that the ticket has left, where it was the last that waited for it."""
        batch = self._fleet.batch_of(ticket)
        if batch is not None and not batch.wanted:
            self.abandon(batch)

    def _tell(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        """End a ticket that was let in, with an event."""
        self._finish(ticket, outcome, now)
        self.events.append(Evict(ticket, outcome, self._pushback_s(ticket, outcome, now)))

    def _pushback_s(self, ticket: Ticket, outcome: Outcome, now: float) -> float | None:
        """When the caller may come again; None where coming again cannot help."""
        if outcome in FINAL:
            return None
        return self.pushbacks[self._ranks[ticket.priority_class]].refused(ticket.ticket_id, now=now)

    def _leave_queue(self, ticket: Ticket, now: float) -> None:
        """Free the place of a waiting ticket that will not be served."""
        lanes = self._lanes
        if ticket.lane in lanes.held:  # it may be the turn of one that is not held now
            lanes.runnable[ticket.lane] = None
        if ticket.state is RETRYING:
            self._release(ticket, now)
            return
        if ticket.charge is not None:
            ticket.charge.settle(0.0, now=now)
        tenant = holder_of(ticket)
        rank = self._ranks[ticket.priority_class]
        if ticket.step is not None and not self._steps.is_current(ticket):
            count_behind(ticket, -1)
        else:
            lanes.by_name[ticket.lane].classes[rank].remove(ticket)
            lanes.runnable[ticket.lane] = None
        self._admission.release(ticket, rank)
        self._tenants.forget_idle(tenant, now=now)

    def _release(self, ticket: Ticket, now: float) -> None:
        """Give back the ticket's places in flight, and let flows of its tenant that were at a cap come back."""
        tenant = holder_of(ticket)
        tenant.release(ticket)
        if tenant.parked:
            self.unpark(tenant)
        if not tenant.queued and not tenant.held.tickets:
            self._tenants.forget_idle(tenant, now=now)

    def _finish(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        ticket.state = ENDED
        del self.tickets[ticket.ticket_id]
        self.ended[outcome] += 1
        if ticket.step is not None:
            self.evict_lost(self._steps.ended(ticket, outcome, now=now), now=now)
