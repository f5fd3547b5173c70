"""Whom a more important arrival displaces: the newest waiting ticket of the least important class.

When the bound over all classes is hit, background that filled the queue must not shut interactive
traffic out. The newest of the least important class gives way: it has waited least, so the least is
lost, and those before it keep their order (Linux's and RED's "drop the tail" turned on the lesser
class; llm-d's flow control evicts the lowest band likewise). A ticket never displaces one of its own
class or of a more important one, so the most important class is displaced by nobody, and a ticket that
is being tried again holds no place in the queue and is displaced by nobody either.

One stack per class, newest on top. A ticket that leaves the queue otherwise stays behind as a dead
entry, dropped when met and swept out when dead entries outnumber the living: O(1) amortised.
"""

from typing import Final

from scheduler.core.ticket import QUEUED, Ticket

# Below this many dead entries a sweep costs more than it frees.
SLACK_ENTRIES: Final = 64


class Newest:
    """One class's waiting tickets over all models and tenants, by time of arrival."""

    __slots__ = ("_stack", "_sweep_at")

    def __init__(self) -> None:
        self._stack: list[Ticket] = []
        self._sweep_at = SLACK_ENTRIES

    def __len__(self) -> int:
        return len(self._stack)

    def push(self, ticket: Ticket) -> None:
        """Add the ticket that has just taken its place."""
        if len(self._stack) >= self._sweep_at:
            self._stack = [each for each in self._stack if each.state is QUEUED]
            self._sweep_at = SLACK_ENTRIES + 2 * len(self._stack)
        self._stack.append(ticket)

    def pop(self) -> Ticket | None:
        """Remove and return the newest ticket that still waits, or None."""
        while self._stack:
            ticket = self._stack.pop()
            if ticket.state is QUEUED:
                return ticket
        return None
