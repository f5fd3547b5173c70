"""A flow: one tenant's waiting tickets in one class of one model, an account of start-time fair queuing (share.py).

A flow whose tenant is at its cap leaves a heap when it is met there, and comes back when the cap frees (caps.py): it
costs the others nothing meanwhile, and it starts no earlier than V then.

Theorem 1 of SFQ leaves ties to whoever implements it, and between tenants they are the rule: the second of two requests
that come at once to somebody else's backlog starts at V plus one cost, as does the next of the backlog, and what was
learned of the cost in between decides. It decides for the second request here: until its second turn a flow takes its
place TIE of a cost before its tag. What it is charged stays the same, so coming and going earns nothing.
"""

from typing import Final, Protocol

from scheduler.core.queues.order import TicketQueue
from scheduler.core.queues.share import Account
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket

# More than estimates of one cost differ from batch to batch, and little beside the cost, one of which is SFQ's bound.
TIE: Final = 0.1


class Heap(Protocol):
    """Flows by the place of one of their tickets."""

    def add(self, flow: "Flow") -> None:
        """Take it in."""


class Owner(Protocol):
    """Whose flow it is: a class's queue in one lane."""

    lane: str

    def join(self, flow: "Flow") -> None:
        """Give it a place among the others, with no credit for the time that it was away."""


class Flow(Account):
    """One tenant's tickets in one class of one model.

    Attributes:
        serial: makes the order of equal tags that of first appearance.
        place: the start tag, or a little less while ties are settled in the flow's favour: what the heaps order by.
        absent_from: heaps that met the flow while its tenant was capped, and dropped it.
        resting_tag: tag under which the flow was last lined up to be forgotten.
    """

    __slots__ = ("absent_from", "fresh", "owner", "place", "resting_tag", "serial", "tenant", "tickets")

    def __init__(self, tenant: Tenant, owner: Owner, serial: int) -> None:
        super().__init__(tenant.settings.weight)
        self.tenant = tenant
        self.owner = owner
        self.place = 0.0
        self.fresh = False
        self.serial = serial
        self.tickets = TicketQueue()
        self.absent_from: dict[Heap, None] = {}
        self.resting_tag: float | None = None

    @property
    def lane(self) -> str:
        """The name of the lane that it waits in."""
        return self.owner.lane

    def blocks(self, ticket: Ticket) -> bool:
        """Whether a cap of the tenant keeps this ticket, or one that comes before it here, from running now."""
        tenant = self.tenant
        if tenant.blocks(ticket):
            return True
        if not tenant.counts_rows:  # then what holds for one ticket holds for all
            return False
        head = self.tickets.head()
        return head is not None and tenant.blocks(head)

    def park(self, heap: Heap) -> None:
        """Leave a heap until a cap of the tenant has room again."""
        self.absent_from[heap] = None
        self.tenant.parked[self] = None

    def unpark(self) -> None:
        """Come back, with no credit for the time at the cap."""
        self.owner.join(self)
        heaps = self.absent_from
        self.absent_from = {}
        for heap in heaps:
            heap.add(self)
