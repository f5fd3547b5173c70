"""One class's waiting tickets for one model: a flow per tenant (flow.py), served in the order of start tags (share.py).

`heads` orders all flows (flow_heap.py); one more heap per merge key orders the flows that hold a ticket of that
key, so that a batch is filled in fair order without a scan. While all that wait have one key, `heads` is
that heap; when a second key comes, the first one's heap is a copy of `heads`. Every operation is O(log tenants)
amortised, and idle tenants are forgotten (resting.py).

A tenant whose tickets ride is charged without V moving (share.py). Before a flow joins, V catches up as far as it can
without passing anybody: to the tag last taken, or the least that waits. Otherwise each newcomer would start as far
behind those that wait as the rides have brought them ahead, and whoever cannot ride would wait for all of them.
"""

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Final

from scheduler.core.queues.backlog import Backlog
from scheduler.core.queues.flow import TIE, Flow
from scheduler.core.queues.flow_heap import FlowHeap
from scheduler.core.queues.resting import RestingFlows
from scheduler.core.queues.returns import Returns
from scheduler.core.queues.share import Account, VirtualTime
from scheduler.core.settings import ClassSettings
from scheduler.core.tenants.caps import Tenant, holder_of
from scheduler.core.ticket import ENDED, IN_FLIGHT, QUEUED, RETRYING, Ticket, TicketState

# A class counts as shared until so many of its batches have gone without a second tenant. A model whose batches are so
# short that these pass within seconds delays nobody by one of them.
ALONE_BATCHES: Final = 1000


class ClassQueue(Account):
    """The waiting tickets of one class for one model; itself an account among the classes.

    Attributes:
        rank: 0 is the most important class.
        lane: name of the lane that it is a part of.
        above_wait_s: the tightest `wait_s` of the classes that may overtake this one; None where none may, or none
            minds. Told by the lane.
        present_wait_s: the same, as far as those classes are in use (lane.py). Told by the lane.
        heard_at: when a ticket of the class came last, monotonic seconds; None: none came yet.
        queued: waiting tickets.
        backlog: their rows, and how they are spread over tenants.
        blocked: whether every tenant that waits here was last seen at its cap.
        usual: rows of a batch of this class under a backlog, and seconds a row, as of its last batch (batch_size.py);
            None before the first.
        returns: whether its callers come back as soon as they are answered.
        retries: tickets of a batch that failed, each to be tried alone; they still count in flight.
    """

    __slots__ = (
        "_alone_batches",
        "_by_key",
        "_flows",
        "_heads",
        "_key",
        "_key_counts",
        "_last_tenant",
        "_resting",
        "_serial",
        "above_wait_s",
        "backlog",
        "blocked",
        "heard_at",
        "lane",
        "present_wait_s",
        "queued",
        "rank",
        "retries",
        "returns",
        "settings",
        "usual",
        "virtual",
    )

    def __init__(self, lane: str, settings: ClassSettings, rank: int) -> None:
        # An account of infinite weight pays nothing and stays at V: nobody's tag is ever less (share.py).
        super().__init__(inf if settings.strict else settings.weight)
        self.lane = lane
        self.above_wait_s: float | None = None
        self.present_wait_s: float | None = None
        self.heard_at: float | None = None
        self.blocked = False
        self.backlog = Backlog()
        self.settings = settings
        self.rank = rank
        self.queued = 0
        self.retries: deque[Ticket] = deque()
        self.usual: tuple[int, float] | None = None
        self.returns = Returns()
        self.virtual = VirtualTime()
        self._last_tenant = ""
        self._alone_batches = ALONE_BATCHES
        self._flows: dict[str, Flow] = {}
        self._heads = FlowHeap()
        # While all that wait have one key that is it, and there is no index.
        self._key: str | None = None
        self._by_key: dict[str, FlowHeap] | None = None
        self._key_counts: dict[str, int] = {}
        self._resting = RestingFlows(self._flows)
        self._serial = 0

    def reconfigure(self, settings: ClassSettings) -> None:
        """Go on with these settings and the tenants' weights as they are now; start tags stay."""
        self.settings = settings
        self.weight = inf if settings.strict else settings.weight
        for flow in self._flows.values():
            flow.weight = flow.tenant.settings.weight

    @property
    def backlogged(self) -> bool:
        """Whether anything waits here, retries included."""
        return self.queued > 0 or self.next_retry() is not None

    @property
    def waits(self) -> bool:
        """Whether a ticket waits here whose tenant was not at its cap when last seen."""
        return self.queued > 0 and not self.blocked

    def next_retry(self) -> Ticket | None:
        """The oldest ticket that waits to be tried alone."""
        while self.retries and self.retries[0].state is not RETRYING:
            self.retries.popleft()
        return self.retries[0] if self.retries else None

    @property
    def own_wait_s(self) -> float | None:
        """The class's `wait_s` where it protects somebody: while tenants share the class; else None.

        A tenant by itself could only wait for its own batches, and smaller ones would make it wait longer. Whoever
        comes to it waits for one of its large batches at most, once.
        """
        return self.settings.wait_s if self._alone_batches < ALONE_BATCHES else None

    def push(self, ticket: Ticket, tenant: Tenant) -> None:
        """Queue the ticket under its tenant."""
        if tenant.name != self._last_tenant:
            if self._last_tenant:
                self._alone_batches = 0
            self._last_tenant = tenant.name
        flow = self._flow_of(tenant)
        tickets, merge_key = flow.tickets, ticket.merge_key
        rows = tickets.rows
        if not tickets.size:
            self.join(flow)
            flow.fresh = True
        if not self.queued:
            self._key, self._by_key = merge_key, None
        elif self._by_key is None and merge_key != self._key:
            self._split()
        ticket.state = QUEUED
        ticket.queued_tag = self.virtual.now
        ticket.holder = tenant
        tickets.append(ticket)
        self.backlog.change(rows, tickets.rows, flow.weight)
        self.queued += 1
        tenant.queued += 1
        tenant.queue_bytes += ticket.queue_bytes
        self._heads.add(flow)
        if self._by_key is not None and merge_key is not None:
            self._index(self._by_key, merge_key, flow)

    def join(self, flow: Flow) -> None:
        """The flow becomes backlogged, or may run again: it gets no credit for the time before."""
        first = self._heads.first()
        self.virtual.catch_up(inf if first is None else first[0].place)
        self.virtual.join(flow)
        flow.place = flow.start

    def leads(self, flow: Flow, merge_key: str, cost_s: float) -> bool:
        """Whether the flow is ahead of one that waits with another merge key by more than this service."""
        if self._by_key is None or self._key_counts.get(merge_key) == self.queued:  # nobody waits with another
            return False
        first = self._heads.first()
        return first is not None and flow.start - first[0].start > cost_s / flow.weight

    def waiting_of(self, merge_key: str | None) -> int:
        """Tickets of the merge key that wait here; none can ride with one that has none."""
        if merge_key is None:
            return 0
        if self._by_key is None:
            return self.queued if merge_key == self._key else 0
        return self._key_counts.get(merge_key, 0)

    def rows_of(self, tenant: Tenant) -> int:
        """Rows of the tenant that wait here."""
        flow = self._flows.get(tenant.name)
        return 0 if flow is None else flow.tickets.rows

    def rows_before(self, ticket: Ticket, tenant: Tenant) -> float:
        """About how many of them would go before a ticket that is not here yet."""
        flow = self._flows.get(tenant.name)
        return 0.0 if flow is None else flow.tickets.rows_before(ticket)

    def first(self) -> tuple[Flow, Ticket] | None:
        """Who is next in this class, or None where every waiting tenant is at its cap."""
        return self._heads.first()

    def first_of(self, merge_key: str) -> tuple[Flow, Ticket] | None:
        """Who is next among the tickets of one merge key."""
        if self._by_key is None:
            return self._heads.first() if merge_key == self._key else None
        heap = self._by_key.get(merge_key)
        return None if heap is None else heap.first()

    def set_aside(self, flow: Flow, merge_key: str) -> tuple[Flow, Ticket] | None:
        """Pass over the flow that `first_of` gave until it is put back; who is next among the others of its key."""
        self._heap_of(merge_key).drop_first(flow)
        return self.first_of(merge_key)

    def put_back(self, flow: Flow, merge_key: str) -> None:
        """The flow that was set aside is in its place again."""
        self._heap_of(merge_key).add(flow)

    def take(self, flow: Flow, ticket: Ticket, cost_s: float, *, chosen: bool) -> None:
        """Move a ticket that `first` or `first_of` gave into flight, and charge its flow.

        Args:
            flow: the ticket's flow.
            ticket: the ticket.
            cost_s: its estimated service time.
            chosen: True for the ticket that the batch was formed for, False for one that rides along.
        """
        ticket.start_tag = flow.start
        if chosen:
            self._alone_batches += 1
            self.virtual.serve(flow, cost_s)
        else:
            self.virtual.charge(flow, cost_s)
        if flow.fresh:
            flow.fresh = False
            flow.place = flow.start - TIE * cost_s / flow.weight
        else:
            flow.place = flow.start
        flow.tenant.take(ticket)
        self._leave(flow, ticket, IN_FLIGHT)

    def charge_more(self, flow: Flow, cost_s: float) -> None:
        """Charge for a ticket that was taken what it costs beyond what was charged then."""
        more = self.virtual.charge_more(flow, cost_s)
        flow.place += more
        if not flow.tickets.size:
            self._rest(flow)

    def remove(self, ticket: Ticket) -> None:
        """Take out a waiting ticket that will not be served (cancelled, expired, evicted)."""
        flow = self._flows[holder_of(ticket).name]
        self._leave(flow, ticket, ENDED)
        if flow.tickets and flow.absent_from:
            # Perhaps this one alone had too many rows for the room that is left under a cap.
            self.join(flow)
            self._heads.add(flow)

    def __iter__(self) -> Iterator[Ticket]:
        """Every ticket that waits here, retries first."""
        yield from (ticket for ticket in self.retries if ticket.state is RETRYING)
        for flow in self._flows.values():
            yield from flow.tickets

    def _flow_of(self, tenant: Tenant) -> Flow:
        flow = self._flows.get(tenant.name)
        if flow is None or flow.tenant is not tenant:
            self._serial += 1
            start = self._resting.floor if flow is None else flow.start
            flow = self._flows[tenant.name] = Flow(tenant, self, self._serial)
            flow.start = start
        return flow

    def _split(self) -> None:
        """A ticket of a second key comes: from now on each key has its heap."""
        self._by_key = {}
        self._key_counts = {}
        if self._key is None:
            return
        heap = self._by_key[self._key] = self._heads.copy_for(self._key)
        self._key_counts[self._key] = self.queued
        for flow in self._flows.values():
            if self._heads in flow.absent_from:
                flow.absent_from[heap] = None

    def _heap_of(self, merge_key: str) -> FlowHeap:
        return self._heads if self._by_key is None else self._by_key[merge_key]

    def _index(self, by_key: dict[str, FlowHeap], merge_key: str, flow: Flow) -> None:
        heap = by_key.get(merge_key)
        if heap is None:
            heap = by_key[merge_key] = FlowHeap(merge_key)
        heap.add(flow)
        self._key_counts[merge_key] = self._key_counts.get(merge_key, 0) + 1

    def _leave(self, flow: Flow, ticket: Ticket, state: TicketState) -> None:
        ticket.state = state
        tickets, tenant = flow.tickets, flow.tenant
        rows = tickets.rows
        tickets.remove(ticket)
        self.backlog.change(rows, tickets.rows, flow.weight)
        tenant.queued -= 1
        tenant.queue_bytes -= ticket.queue_bytes
        self.queued -= 1
        if self._by_key is not None and ticket.merge_key is not None:
            self._unindex(self._by_key, ticket.merge_key)
        if not tickets.size:
            self._rest(flow)

    def _rest(self, flow: Flow) -> None:
        if not self.queued:
            self.virtual.rest()
        self._resting.add(flow, self.virtual.now)

    def _unindex(self, by_key: dict[str, FlowHeap], merge_key: str) -> None:
        self._key_counts[merge_key] -= 1
        if not self._key_counts[merge_key]:
            del self._key_counts[merge_key]
            del by_key[merge_key]
