"""When the next batch of a lane would start, who of it would end too late, and how large it may be for those in it.

A batch is no larger than what lets all that are in it end in time, those of least time included: whoever joins
lengthens the answer of all. Only a ticket that could not make it in a batch that still serves RATE of what the largest
serve is given up: to shrink further would cost the capacity that everyone behind it needs.
"""

from collections.abc import Callable
from typing import Final

from scheduler.core.estimate import KNOWN_SAMPLES, LatencyLine
from scheduler.core.feasibility import in_time
from scheduler.core.ticket import RETRYING, Ticket

RATE: Final = 0.9


class Departure:
    """The next batch of one merge key, to one backend.

    Args:
        start_at: when an instance is expected to be free for it, monotonic seconds.
        line: how long its batches take there.
        max_batch_size: rows of a batch, at most; at least 1.
        waiting: rows of a batch that could be formed now with this ticket; asked where a full one would end too late.
        evict: takes a ticket out that would end too late.
    """

    __slots__ = ("_evict", "_full_at", "_line", "_max_batch_size", "_start_at", "_waiting")

    def __init__(
        self,
        start_at: float,
        line: LatencyLine,
        max_batch_size: int,
        waiting: Callable[[Ticket], int],
        evict: Callable[[Ticket], None],
    ) -> None:
        self._start_at = start_at
        self._line = line
        self._max_batch_size = max_batch_size
        self._waiting = waiting
        self._evict = evict
        # By then even a full batch has ended.
        self._full_at = start_at + line.predict(max_batch_size)

    def misses(self, ticket: Ticket, beside: int = 0) -> bool:
        """Whether the ticket would end late behind so many rows of the batch; it is evicted then."""
        if ticket.deadline is None or (ticket.deadline >= self._full_at and ticket.rows <= self._max_batch_size):
            return False
        rows = beside + ticket.rows
        if ticket.state is not RETRYING:  # which goes alone
            rows = max(rows, self._line.rows_for_rate(RATE, self._waiting(ticket)))
        if in_time(self._line, rows, ticket.deadline, self._start_at):
            return False
        self._evict(ticket)
        return True

    def rows_for(self, ticket: Ticket, most: int) -> int:
        """Rows of a batch that this ticket is in, no more than `most`."""
        if ticket.deadline is None or ticket.deadline >= self._full_at or self._line.samples < KNOWN_SAMPLES:
            return most
        made = self._line.rows_in(ticket.deadline - self._start_at)
        return most if made >= most else max(int(made), self._line.rows_for_rate(RATE, most))
