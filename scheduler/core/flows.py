"""One class's waiting tickets for one model: a flow per tenant, ordered by start tag (share.py).

`heads` orders all flows; one more heap per merge key orders the flows that hold a ticket of that
key, so that a batch is filled in fair order without a scan. Start tags only grow, so an entry whose
tag is out of date is corrected when it comes to the top; a flow whose tenant is at its cap is taken
out when met and put back when the cap frees (caps.py). Every operation is O(log tenants) amortised.
"""

import heapq
from collections.abc import Iterator

from scheduler.core.caps import Tenant
from scheduler.core.order import TicketQueue
from scheduler.core.settings import ClassSettings
from scheduler.core.share import Account, VirtualTime
from scheduler.core.ticket import Ticket, TicketState


class Flow(Account):
    """One tenant's tickets in one class of one model.

    Attributes:
        serial: makes the order of equal tags that of first appearance.
        absent_from: heaps that met the flow while its tenant was capped, and dropped it.
    """

    __slots__ = ("absent_from", "owner", "parked", "serial", "tenant", "tickets")

    def __init__(self, tenant: Tenant, owner: "ClassQueue", serial: int) -> None:
        super().__init__(tenant.settings.weight)
        self.tenant = tenant
        self.owner = owner
        self.serial = serial
        self.tickets = TicketQueue()
        self.parked = False
        self.absent_from: list[FlowHeap] = []

    def park(self, heap: "FlowHeap") -> None:
        """Leave a heap until the tenant is below its cap again."""
        self.absent_from.append(heap)
        if not self.parked:
            self.parked = True
            self.tenant.parked.append(self)

    def unpark(self) -> None:
        """Come back, with no credit for the time at the cap."""
        self.parked = False
        self.owner.virtual.join(self)
        heaps = self.absent_from
        self.absent_from = []
        for heap in heaps:
            heap.add(self)


class FlowHeap:
    """Flows by start tag, those with a ticket of `merge_key` (None: those with any ticket)."""

    __slots__ = ("_entries", "_members", "_merge_key")

    def __init__(self, merge_key: str | None = None) -> None:
        self._merge_key = merge_key
        self._entries: list[tuple[float, int, Flow]] = []
        self._members: set[int] = set()

    def add(self, flow: Flow) -> None:
        """Add the flow unless it is here."""
        if flow.serial not in self._members:
            self._members.add(flow.serial)
            heapq.heappush(self._entries, (flow.start, flow.serial, flow))

    def first(self) -> tuple[Flow, Ticket] | None:
        """The flow with the least start tag that may run, and its oldest ticket; None: there is none."""
        while self._entries:
            start, serial, flow = self._entries[0]
            ticket = flow.tickets.head() if self._merge_key is None else flow.tickets.head_of(self._merge_key)
            if ticket is None:
                self._pop(serial)
            elif flow.tenant.capped:
                self._pop(serial)
                flow.park(self)
            elif start != flow.start:
                heapq.heapreplace(self._entries, (flow.start, serial, flow))
            else:
                return flow, ticket
        return None

    def _pop(self, serial: int) -> None:
        heapq.heappop(self._entries)
        self._members.discard(serial)


class ClassQueue(Account):
    """The waiting tickets of one class for one model; itself an account among the classes.

    Attributes:
        rank: 0 is the most important class.
        queued: waiting tickets.
        blocked: whether every tenant that waits here was last seen at its cap.
    """

    __slots__ = (
        "_by_key",
        "_flows",
        "_heads",
        "_key_counts",
        "_resting",
        "_serial",
        "blocked",
        "model",
        "queued",
        "rank",
        "settings",
        "virtual",
    )

    def __init__(self, model: str, settings: ClassSettings, rank: int) -> None:
        super().__init__(settings.weight)
        self.model = model
        self.blocked = False
        self.settings = settings
        self.rank = rank
        self.queued = 0
        self.virtual = VirtualTime()
        self._flows: dict[str, Flow] = {}
        self._heads = FlowHeap()
        self._by_key: dict[str, FlowHeap] = {}
        self._key_counts: dict[str, int] = {}
        self._resting: list[tuple[float, int, Flow]] = []
        self._serial = 0

    def push(self, ticket: Ticket, tenant: Tenant) -> None:
        """Queue the ticket under its tenant."""
        flow = self._flow_of(tenant)
        if not flow.tickets:
            self.virtual.join(flow)
        ticket.state = TicketState.QUEUED
        flow.tickets.append(ticket)
        self.queued += 1
        tenant.queued += 1
        self._heads.add(flow)
        if ticket.merge_key is not None:
            self._index(ticket.merge_key, flow)

    def first(self) -> tuple[Flow, Ticket] | None:
        """Who is next in this class, or None where every waiting tenant is at its cap."""
        return self._heads.first()

    def first_of(self, merge_key: str) -> tuple[Flow, Ticket] | None:
        """Who is next among the tickets of one merge key."""
        heap = self._by_key.get(merge_key)
        return None if heap is None else heap.first()

    def take(self, flow: Flow, ticket: Ticket, cost_s: float, *, chosen: bool) -> None:
        """Move a ticket that `first` or `first_of` gave into flight, and charge its flow.

        Args:
            flow: the ticket's flow.
            ticket: the ticket.
            cost_s: its estimated service time.
            chosen: True for the ticket that the batch was formed for, False for one that rides along.
        """
        if chosen:
            self.virtual.serve(flow, cost_s)
        else:
            self.virtual.ride(flow, cost_s)
        flow.tenant.in_flight += 1
        self._leave(flow, ticket, TicketState.IN_FLIGHT)

    def remove(self, ticket: Ticket) -> None:
        """Take out a waiting ticket that will not be served (cancelled, expired, evicted)."""
        self._leave(self._flows[ticket.tenant], ticket, TicketState.ENDED)

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for flow in self._flows.values() for ticket in flow.tickets)

    def _flow_of(self, tenant: Tenant) -> Flow:
        flow = self._flows.get(tenant.name)
        if flow is None or flow.tenant is not tenant:
            self._serial += 1
            start = 0.0 if flow is None else flow.start
            flow = self._flows[tenant.name] = Flow(tenant, self, self._serial)
            flow.start = start
        return flow

    def _index(self, merge_key: str, flow: Flow) -> None:
        heap = self._by_key.get(merge_key)
        if heap is None:
            heap = self._by_key[merge_key] = FlowHeap(merge_key)
        heap.add(flow)
        self._key_counts[merge_key] = self._key_counts.get(merge_key, 0) + 1

    def _leave(self, flow: Flow, ticket: Ticket, state: TicketState) -> None:
        ticket.state = state
        flow.tickets.remove(ticket)
        flow.tenant.queued -= 1
        self.queued -= 1
        if ticket.merge_key is not None:
            self._unindex(ticket.merge_key)
        if not flow.tickets:
            self._rest(flow)

    def _unindex(self, merge_key: str) -> None:
        self._key_counts[merge_key] -= 1
        if not self._key_counts[merge_key]:
            del self._key_counts[merge_key]
            del self._by_key[merge_key]

    def _rest(self, flow: Flow) -> None:
        """Forget idle flows whose tag V has passed: joining anew would give them the same tag."""
        heapq.heappush(self._resting, (flow.start, flow.serial, flow))
        if not self.queued:
            self.virtual.rest()
        while self._resting and self._resting[0][0] <= self.virtual.now:
            _, _, idle = heapq.heappop(self._resting)
            if not idle.tickets and idle.start <= self.virtual.now and self._flows.get(idle.tenant.name) is idle:
                del self._flows[idle.tenant.name]
