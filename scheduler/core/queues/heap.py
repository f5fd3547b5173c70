"""Tickets by deadline, waiting or in flight: a binary heap whose dead entries are dropped when met.

A ticket that ends before its deadline stays in the heap as a dead entry; `forget` counts those, and
the heap is rebuilt once they outnumber the living, so memory stays within twice the live entries
(plus a constant) and every operation is O(log n) amortised.
"""

import heapq
from typing import Final

from scheduler.core.ticket import ENDED, Ticket

# Below this many dead entries a rebuild costs more than it frees.
SLACK_ENTRIES: Final = 64


class DeadlineHeap:
    """The deadlines of tickets that have not ended, in monotonic seconds."""

    __slots__ = ("_dead", "_entries")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Ticket]] = []
        self._dead = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def watches(self) -> bool:
        """Whether there may be a ticket with a deadline."""
        return bool(self._entries)

    def push(self, ticket: Ticket) -> None:
        """Watch the ticket's deadline; a ticket without one is not watched."""
        if ticket.deadline is not None:
            heapq.heappush(self._entries, (ticket.deadline, ticket.ticket_id, ticket))

    def forget(self, ticket: Ticket) -> None:
        """Count the entry of a ticket that has ended, and rebuild when dead ones prevail."""
        if ticket.deadline is None:
            return
        self._dead += 1
        if self._dead > SLACK_ENTRIES and self._dead * 2 > len(self._entries):
            self._entries = [entry for entry in self._entries if entry[2].state is not ENDED]
            heapq.heapify(self._entries)
            self._dead = 0

    def pop_due(self, *, now: float) -> Ticket | None:
        """Remove and return a ticket whose deadline has come, or None."""
        entries = self._entries
        while entries and entries[0][0] <= now:
            ticket = heapq.heappop(entries)[2]
            if ticket.state is not ENDED:
                return ticket
            self._dead = max(0, self._dead - 1)
        return None

    def next_deadline(self) -> float | None:
        """The earliest deadline, or None."""
        entries = self._entries
        while entries and entries[0][2].state is ENDED:
            heapq.heappop(entries)
            self._dead = max(0, self._dead - 1)
        return entries[0][0] if entries else None
