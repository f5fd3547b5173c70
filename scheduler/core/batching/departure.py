"""When the next batch of a lane would start, who of it would end too late, and how large it may be for those in it.

A batch is no larger than what lets all that are in it end in time, those of least time included: whoever joins
lengthens the answer of all. Where others of its class wait this has a limit: only a ticket that could not make it in a
batch that still serves RATE of what the largest serve is given up, since to shrink further would cost the capacity that
everyone behind it needs.

Otherwise only who would be late were his batch the fastest of its kind is given up, and nobody who would run on an idle
instance at once, however late that seems.
"""

from collections.abc import Callable
from typing import Final

from scheduler.core.latency.estimate import LatencyLine
from scheduler.core.ticket import RETRYING, Ticket

RATE: Final = 0.9


class Departure:
    """The next batch of one merge key, to one backend, of whose model enough is known.

    Args:
        start_at: when an instance is expected to be free for it, monotonic seconds.
        line: how long its batches take there.
        max_batch_size: rows of a batch, at most; at least 1.
        waiting: rows of a batch that could be formed now with this ticket; asked where a full one would end too late.
        evict: takes a ticket out that would end too late.
        earliest_end: when a batch of so many rows with this ticket may end at the earliest, monotonic seconds. None: an
            instance is idle, or too little is known, and nobody is given up.
        crowded: whether others wait, so that `line` decides; it has learned from batches of the key.
    """

    __slots__ = ("_crowded", "_earliest_end", "_evict", "_full_at", "_line", "_max_batch_size", "_start_at", "_waiting")

    def __init__(
        self,
        start_at: float,
        line: LatencyLine,
        max_batch_size: int,
        waiting: Callable[[Ticket], int],
        evict: Callable[[Ticket], None],
        earliest_end: Callable[[Ticket, int], float] | None,
        *,
        crowded: bool,
    ) -> None:
        self._start_at = start_at
        self._line = line
        self._max_batch_size = max_batch_size
        self._waiting = waiting
        self._earliest_end = earliest_end
        self._evict = evict
        self._crowded = crowded
        # By then even a full batch has ended.
        self._full_at = start_at + line.predict(max_batch_size)

    def misses(self, ticket: Ticket, beside: int = 0) -> bool:
        """Whether the ticket would end late behind so many rows of the batch; it is evicted then."""
        if ticket.deadline is None or ticket.tried or self._earliest_end is None:
            return False
        if ticket.deadline >= self._full_at and ticket.rows <= self._max_batch_size:
            return False
        rows = beside + ticket.rows
        if self._crowded and ticket.state is not RETRYING:  # which goes alone
            rows = max(rows, self._line.rows_for_rate(RATE, self._waiting(ticket)))
        ends_at = self._start_at + self._line.predict(rows) if self._crowded else self._earliest_end(ticket, rows)
        if ends_at <= ticket.deadline:
            return False
        self._evict(ticket)
        return True

    def rows_for(self, ticket: Ticket, most: int) -> int:
        """Rows of a batch that this ticket is in, no more than `most`; who is late in any batch shrinks none."""
        if ticket.deadline is None or ticket.deadline >= self._full_at:
            return most
        made = self._line.rows_in(ticket.deadline - self._start_at)
        if made >= most:
            return most
        if self._crowded:
            return max(int(made), self._line.rows_for_rate(RATE, most))
        return int(made) if made >= ticket.rows else most
