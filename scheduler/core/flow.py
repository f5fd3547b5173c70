"""A flow: one tenant's waiting tickets in one class of one model, an account of start-time fair queuing (share.py).

A flow whose tenant is at its cap leaves a heap when it is met there, and comes back when the cap frees (caps.py): it
costs the others nothing meanwhile, and it starts no earlier than V then.
"""

from typing import TYPE_CHECKING

from scheduler.core.caps import Tenant
from scheduler.core.order import TicketQueue
from scheduler.core.share import Account
from scheduler.core.ticket import Ticket

if TYPE_CHECKING:
    from scheduler.core.class_queue import ClassQueue
    from scheduler.core.flow_heap import FlowHeap


class Flow(Account):
    """One tenant's tickets in one class of one model.

    Attributes:
        serial: makes the order of equal tags that of first appearance.
        absent_from: heaps that met the flow while its tenant was capped, and dropped it.
        resting_tag: tag under which the flow was last lined up to be forgotten.
    """

    __slots__ = ("absent_from", "owner", "resting_tag", "serial", "tenant", "tickets")

    def __init__(self, tenant: Tenant, owner: "ClassQueue", serial: int) -> None:
        super().__init__(tenant.settings.weight)
        self.tenant = tenant
        self.owner = owner
        self.serial = serial
        self.tickets = TicketQueue()
        self.absent_from: dict[FlowHeap, None] = {}
        self.resting_tag: float | None = None

    def blocks(self, ticket: Ticket) -> bool:
        """Whether a cap of the tenant keeps this ticket, or one that comes before it here, from running now."""
        tenant = self.tenant
        if tenant.blocks(ticket):
            return True
        if not tenant.counts_rows:  # then what holds for one ticket holds for all
            return False
        head = self.tickets.head()
        return head is not None and tenant.blocks(head)

    def park(self, heap: "FlowHeap") -> None:
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
