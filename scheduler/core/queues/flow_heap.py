"""Flows by their place, which is the start tag or a little less (flow.py): who is next.

Places only grow, as start tags do (share.py), so an entry whose place is out of date is corrected when it comes to the
top, and one whose flow has nothing to give, or may not give it now, leaves when it is met there. Every operation is
O(log tenants) amortised.

A flow that loses its last ticket stays as a dead entry until it is met. Before a heap would grow beyond twice the flows
with tickets that its last sweep found, and SLACK_ENTRIES, it is swept again: who comes and goes, under however many
names, leaves nothing behind.
"""

import heapq
from typing import Final

from scheduler.core.queues.flow import Flow
from scheduler.core.ticket import Ticket

# Below this many entries sweeping a heap costs more than it frees.
SLACK_ENTRIES: Final = 64


class FlowHeap:
    """Flows by place, those with a ticket of `merge_key` (None: those with any ticket)."""

    __slots__ = ("_entries", "_members", "_merge_key", "_sweep_at")

    def __init__(self, merge_key: str | None = None) -> None:
        self._merge_key = merge_key
        self._entries: list[tuple[float, int, Flow]] = []
        self._members: set[int] = set()
        self._sweep_at = SLACK_ENTRIES

    def __len__(self) -> int:
        return len(self._entries)

    def copy_for(self, merge_key: str) -> "FlowHeap":
        """A heap of those of these flows that have a ticket of this key; the others leave it when they are met."""
        copy = FlowHeap(merge_key)
        copy._entries = self._entries.copy()
        copy._members = self._members.copy()
        copy._sweep_at = self._sweep_at
        return copy

    def add(self, flow: Flow) -> None:
        """Add the flow unless it is here."""
        serial = flow.serial
        if serial in self._members:
            return
        if len(self._entries) >= self._sweep_at:
            self._sweep()
        self._members.add(serial)
        heapq.heappush(self._entries, (flow.place, serial, flow))

    def first(self) -> tuple[Flow, Ticket] | None:
        """The first flow by place that may run, and its oldest ticket; None: there is none."""
        entries, merge_key = self._entries, self._merge_key
        while entries:
            place, serial, flow = entries[0]
            ticket = flow.tickets.head() if merge_key is None else flow.tickets.head_of(merge_key)
            if ticket is None:
                heapq.heappop(entries)
                self._members.discard(serial)
            elif flow.blocks(ticket):
                heapq.heappop(entries)
                self._members.discard(serial)
                flow.park(self)
            elif place != flow.place:
                heapq.heapreplace(entries, (flow.place, serial, flow))
            else:
                return flow, ticket
        return None

    def drop_first(self, flow: Flow) -> None:
        """Take out the flow that `first` has just given."""
        heapq.heappop(self._entries)
        self._members.discard(flow.serial)

    def _head(self, flow: Flow) -> Ticket | None:
        return flow.tickets.head() if self._merge_key is None else flow.tickets.head_of(self._merge_key)

    def _sweep(self) -> None:
        """Drop flows without a ticket, wherever they stand."""
        self._entries = [
            (flow.place, serial, flow) for _, serial, flow in self._entries if self._head(flow) is not None
        ]
        heapq.heapify(self._entries)
        self._members = {serial for _, serial, _ in self._entries}
        self._sweep_at = SLACK_ENTRIES + 2 * len(self._entries)
