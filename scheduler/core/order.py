"""The order of one tenant's waiting tickets: first come, first served, with an index by merge key.

The index lets a batch take the tenant's oldest ticket of its own key without a scan. A ticket taken
by one way stays behind in the other as a dead entry; dead entries are dropped when they come to the
front and swept out when they outnumber the living, so operations are O(1) amortised.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from scheduler.core.ticket import Ticket, TicketState

# Below this many dead entries a sweep costs more than it frees.
SLACK_ENTRIES: Final = 16


class TicketQueue:
    """FIFO of waiting tickets; `len()` counts the living."""

    __slots__ = ("_by_key", "_fifo", "_size")

    def __init__(self) -> None:
        self._fifo: deque[Ticket] = deque()
        self._by_key: dict[str, deque[Ticket]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, ticket: Ticket) -> None:
        """Add a ticket in state QUEUED at the end."""
        self._fifo.append(ticket)
        if ticket.merge_key is not None:
            self._by_key.setdefault(ticket.merge_key, deque()).append(ticket)
        self._size += 1

    def head(self) -> Ticket | None:
        """The oldest ticket, or None."""
        return _front(self._fifo)

    def head_of(self, merge_key: str) -> Ticket | None:
        """The oldest ticket with this merge key, or None."""
        line = self._by_key.get(merge_key)
        ticket = None if line is None else _front(line)
        if line is not None and ticket is None:
            del self._by_key[merge_key]
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket whose state has just left QUEUED, wherever it stands."""
        self._size -= 1
        if ticket.merge_key is not None:
            self.head_of(ticket.merge_key)
        if len(self._fifo) > 2 * self._size + SLACK_ENTRIES:
            self._sweep()

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for ticket in self._fifo if ticket.state is TicketState.QUEUED)

    def _sweep(self) -> None:
        living = list(self)
        self._fifo.clear()
        self._by_key.clear()
        self._size = 0
        for ticket in living:
            self.append(ticket)


def _front(line: deque[Ticket]) -> Ticket | None:
    while line and line[0].state is not TicketState.QUEUED:
        line.popleft()
    return line[0] if line else None
