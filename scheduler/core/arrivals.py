"""What becomes of a ticket that arrives: it is queued, or it is refused, at once.

Checked in this order: whether it can be served at all (draining, its deadline, a backend), whether there is room
(admission.py, queue_policy.py), and whether it can end in time (feasibility.py), so that nothing is displaced for a
ticket that is refused. A more important arrival that finds the whole queue full enters in the place of lesser ones
(displacement.py).
"""

from scheduler.core.admission.bounds import Admission, Refusal
from scheduler.core.admission.feasibility import feasible
from scheduler.core.backends.fleet import Fleet
from scheduler.core.endings import Endings
from scheduler.core.latency.estimate import FIRST_ROW_S
from scheduler.core.latency.evidence import KNOWN
from scheduler.core.outcome import Outcome
from scheduler.core.queues.lane import Lane
from scheduler.core.queues.lanes import Lanes
from scheduler.core.rate import Rate, RateUnit
from scheduler.core.sequences.steps import Steps
from scheduler.core.tenants.caps import Tenant, Tenants
from scheduler.core.ticket import Ticket


class Arrivals:
    """The way into the queues. `now` is in monotonic seconds.

    Attributes:
        draining: whether every ticket is refused from now on.
    """

    __slots__ = ("_admission", "_endings", "_fleet", "_lanes", "_steps", "_tenants", "draining")

    def __init__(
        self, lanes: Lanes, fleet: Fleet, admission: Admission, tenants: Tenants, steps: Steps, endings: Endings
    ) -> None:
        self._lanes = lanes
        self._fleet = fleet
        self._admission = admission
        self._tenants = tenants
        self._steps = steps
        self._endings = endings
        self.draining = False

    def take_in(self, ticket: Ticket, rank: int, *, now: float) -> None:
        """Queue a new ticket of the class of this rank, or refuse it."""
        tenant = self._tenants.find(ticket.tenant, now=now)
        cost = 1.0 if tenant.bucket is None else self._cost(ticket, tenant.bucket.rate)
        refusal = self._refusal(ticket, rank, tenant, cost, now)
        if refusal is None and not self._admission.fits(ticket):
            self._displace(ticket, rank, now)
            # What was displaced may have been a step before this one, or all that its tenant had.
            tenant = self._tenants.find(ticket.tenant, now=now)
            refusal = self._steps.gap(ticket, tenant, now=now)
        if refusal is None:
            self._enqueue(ticket, rank, tenant, cost, now)
            return
        self._endings.refuse(ticket, refusal, now=now)
        self._tenants.forget_idle(tenant, now=now)

    def _cost(self, ticket: Ticket, rate: Rate) -> float:
        """What the ticket takes of its tenant's rate; seconds of service as they are expected."""
        if rate.unit is RateUnit.REQUESTS:
            return 1.0
        if rate.unit is RateUnit.ROWS:
            return ticket.rows
        lane = self._lane(ticket)
        return ticket.rows * (FIRST_ROW_S if lane is None else lane.estimator.line(ticket.latency_key).row_s)

    def _refusal(self, ticket: Ticket, rank: int, tenant: Tenant, cost: float, now: float) -> Refusal | None:
        if self.draining:
            return Refusal(Outcome.DRAINING)
        if ticket.deadline is not None and ticket.deadline <= now:
            return Refusal(Outcome.DEADLINE_EXPIRED)
        if not self._fleet.offered(ticket.model):
            return Refusal(Outcome.NO_BACKEND)
        refusal = None if ticket.step is None else self._steps.gap(ticket, tenant, now=now)
        if refusal is None:
            refusal = self._admission.refusal(ticket, rank, tenant, now=now, cost=cost) or self._policy_refusal(ticket)
        if refusal is None and ticket.deadline is not None and not self._feasible(ticket, rank, tenant, now):
            return Refusal(Outcome.DEADLINE_INFEASIBLE)
        return refusal

    def _policy_refusal(self, ticket: Ticket) -> Refusal | None:
        policy = ticket.policy
        if policy is None or not self._admission.policies.full(ticket, self._fleet.spare(ticket.model)):
            return None
        return Refusal(
            Outcome.QUEUE_FULL, detail=f"the configuration of its model lets {policy.max_queued} requests wait"
        )

    def _feasible(self, ticket: Ticket, rank: int, tenant: Tenant, now: float) -> bool:
        if not self._fleet.served(ticket.model):
            return True  # nobody knows how long a missed backend is away
        lane = self._lane(ticket)
        if lane is None or not lane.evidence.known(KNOWN, now=now):
            return True
        queue = lane.classes[rank]
        # Behind others averages decide, and the fastest need not be looked up.
        part = 1.0 if queue.queued else lane.evidence.least_part()
        outlook = self._fleet.outlook(ticket.model, part, now=now)
        return feasible(lane, queue, tenant, ticket, outlook, now=now)

    def _lane(self, ticket: Ticket) -> Lane | None:
        """The queues that it would stand in; None where nobody has stood there yet."""
        return self._lanes.by_name.get(ticket.model if ticket.step is None else self._steps.lane_name(ticket))

    def _displace(self, ticket: Ticket, rank: int, now: float) -> None:
        """Evict the lesser tickets in whose place an arrival enters."""
        while (displaced := self._admission.in_the_way(ticket, rank)) is not None:
            self._endings.evict(displaced, Outcome.DISPLACED, now=now)

    def _enqueue(self, ticket: Ticket, rank: int, tenant: Tenant, cost: float, now: float) -> None:
        self._admission.book(ticket, rank, tenant, now=now, cost=cost)
        self._endings.tickets[ticket.ticket_id] = ticket
        if ticket.deadline is not None:
            self._endings.deadlines.push(ticket)
        if ticket.step is not None:
            self._steps.join(ticket, tenant, now=now)
            return
        lane = self._lanes.of(ticket.model)
        lane.heard(rank, ticket.rows, now=now)
        if not lane.waits and self._fleet.idle_instances(ticket.model):
            lane.idle_at = now
        lane.push(ticket, rank, tenant)
        self._lanes.runnable[ticket.model] = None
