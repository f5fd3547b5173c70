"""The order of one tenant's waiting tickets: earliest due first, with an index by merge key.

A ticket is due at its deadline, yet no later than PATIENCE_S after it arrived; one without a deadline is
due at that time. Those whose model lets them wait for less, and has them delayed then, go behind all others, as in
Triton (queue_policy.py). So tickets without deadlines keep their order of arrival among themselves, deadlines
are served earliest first (EDF, which meets them all where that can be done at all: C. L. Liu, J. W. Layland,
"Scheduling algorithms for multiprogramming in a hard-real-time environment", JACM 1973), and the two
mix by one rule. Nobody starves: whoever arrives after a ticket was due is due later than it, so a
ticket is overtaken only by what arrives within PATIENCE_S of it, which its tenant's quota bounds.

The order holds within one tenant's tickets of one class and model; between tenants and classes the
shares decide (share.py), or a short deadline would buy somebody else's share.

Most tickets arrive in the order in which they are due: those stand in a deque, at O(1). The others
stand in a heap beside it, at O(log n). The index lets a batch take the tenant's first ticket of its own key
without a scan. Most tenants send one key: there is no index until a second one waits beside it. A ticket
taken by one way stays behind in the other as a dead entry; dead entries are dropped when they come to the
front and swept out when they outnumber the living.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from typing import Final

from scheduler.core.ticket import QUEUED, Ticket

# Longer than any deadline that somebody waits for at a screen, shorter than most retries of a job.
PATIENCE_S: Final = 10.0
# Below this many dead entries a sweep costs more than it frees.
SLACK_ENTRIES: Final = 16


def due(ticket: Ticket, *, now: float) -> float:
    """When a ticket that arrives now is due (monotonic seconds)."""
    latest, deadline = now + PATIENCE_S, ticket.deadline
    return latest if deadline is None or deadline > latest else deadline


class _Line(deque[Ticket]):
    """Tickets by when they are due; the deque holds those that came in order.

    Attributes:
        early: heap of those that were due before the last one of the deque: (due, number, ticket).
        late: those that were found to be delayed.
    """

    __slots__ = ("early", "late")

    # Set from outside, without an __init__ of its own: a line is made for every tenant that comes.
    early: list[tuple[float, int, Ticket]] | None
    late: deque[Ticket] | None

    @classmethod
    def empty(cls) -> "_Line":
        line = cls()
        line.early = line.late = None
        return line

    def copy_of(self) -> "_Line":
        """A line with the same tickets."""
        line = _Line(self)
        line.early = None if self.early is None else self.early.copy()
        line.late = None if self.late is None else self.late.copy()
        return line

    def add(self, ticket: Ticket) -> None:
        if not self or ticket.due >= self[-1].due:
            self.append(ticket)
        else:
            if self.early is None:
                self.early = []
            heapq.heappush(self.early, (ticket.due, ticket.ticket_id, ticket))

    def front(self) -> Ticket | None:
        """The first ticket that still waits; dead ones before it are dropped, and delayed ones put off."""
        early = self.early
        while self:
            ticket = self[0]
            if ticket.state is QUEUED:
                if not ticket.delayed:
                    break
                self._put_off(ticket)
            self.popleft()
        while early:
            ticket = early[0][2]
            if ticket.state is QUEUED:
                if not ticket.delayed:
                    break
                self._put_off(ticket)
            heapq.heappop(early)
        if early and (not self or early[0][:2] < (self[0].due, self[0].ticket_id)):
            return early[0][2]
        if self:
            return self[0]
        late = self.late
        while late and late[0].state is not QUEUED:
            late.popleft()
        return late[0] if late else None

    def _put_off(self, ticket: Ticket) -> None:
        if self.late is None:
            self.late = deque()
        self.late.append(ticket)

    @property
    def entries(self) -> int:
        """Tickets that stand here, dead ones included."""
        return len(self) + len(self.early or ()) + len(self.late or ())


class TicketQueue:
    """One tenant's waiting tickets in order; `len()` counts the living.

    Attributes:
        rows: of the living together.
        size: how many they are.
    """

    __slots__ = ("_all", "_by_key", "_key", "rows", "size")

    def __init__(self) -> None:
        self._all = _Line.empty()
        # While all that wait have one key that is it, and there is no index.
        self._key: str | None = None
        self._by_key: dict[str, _Line] | None = None
        self.size = 0
        self.rows = 0

    def __len__(self) -> int:
        return self.size

    def append(self, ticket: Ticket) -> None:
        """Add a ticket in state QUEUED, behind all that are due no later."""
        if not self.size:
            self._key, self._by_key = ticket.merge_key, None
        elif self._by_key is None and ticket.merge_key != self._key:
            self._by_key = {} if self._key is None else {self._key: self._all.copy_of()}
        self._all.add(ticket)
        if self._by_key is not None and ticket.merge_key is not None:
            line = self._by_key.get(ticket.merge_key)
            if line is None:
                line = self._by_key[ticket.merge_key] = _Line.empty()
            line.add(ticket)
        self.size += 1
        self.rows += ticket.rows

    def head(self) -> Ticket | None:
        """The first ticket, or None."""
        return self._all.front()

    def head_of(self, merge_key: str) -> Ticket | None:
        """The first ticket with this merge key, or None."""
        if self._by_key is None:
            return self._all.front() if merge_key == self._key else None
        line = self._by_key.get(merge_key)
        ticket = None if line is None else line.front()
        if line is not None and ticket is None:
            del self._by_key[merge_key]
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out a ticket whose state has just left QUEUED, wherever it stands."""
        self.size -= 1
        self.rows -= ticket.rows
        if self._by_key is not None and ticket.merge_key is not None:
            self.head_of(ticket.merge_key)
        line = self._all
        entries = len(line) if line.early is None and line.late is None else line.entries
        if entries > 2 * self.size + SLACK_ENTRIES:
            self._sweep()

    def rows_before(self, ticket: Ticket) -> float:
        """About how many rows would stand before a ticket that is not here yet.

        All of them where it is due last, which is the rule; else as if what waits were due evenly
        between the first and the last, which costs nothing to tell.
        """
        first = self._all.front()
        if first is None or ticket.due < first.due:
            return 0.0
        last_due = self._all[-1].due if self._all else first.due
        if ticket.due >= last_due:
            return self.rows
        return self.rows * (ticket.due - first.due) / (last_due - first.due)

    def __iter__(self) -> Iterator[Ticket]:
        """The living, in no particular order."""
        yield from (ticket for ticket in self._all if ticket.state is QUEUED)
        yield from (ticket for _, _, ticket in self._all.early or () if ticket.state is QUEUED)
        yield from (ticket for ticket in self._all.late or () if ticket.state is QUEUED)

    def _sweep(self) -> None:
        living = sorted(self, key=lambda ticket: (ticket.due, ticket.ticket_id))
        self._all = _Line.empty()
        self.size = 0
        self.rows = 0
        for ticket in living:
            self.append(ticket)
