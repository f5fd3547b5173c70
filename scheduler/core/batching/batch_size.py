"""How many rows a batch may have.

A batch may stand in the way of an arrival that comes before its tickets: of a more important class, or of a tenant of
its own class that was served less. So it may last no longer than T, derived in limit.py from the tightest wait_s of
its class and those above; the learned latency line (estimate.py) turns T into rows. A ticket that is larger than its
bound by itself still goes, alone: it cannot be split.

The price of a class's own wait_s is throughput where a full batch of N rows takes longer than T: n = (T - a) / b rows
then go at a time, at n / (a + b * n) rows a second and instance in place of N / (a + b * N). It is paid while tenants
share the class (class_queue.py); one by itself has nobody to wait for it. It is never more than half: the batch keeps
the n >= N * a / (2 * a + b * N) that half of the full rate takes, and where these take longer than T (a is large), that
is how long a tenant of the same class may have to wait for them. Before the first answer nothing is known and the batch
is full. For a more important class that is in use (lane.py) T holds from the first batch, and at any price that buys
something: where one row takes longer than T by itself, a batch is filled up to FREE beyond what that row takes. So a
model that takes 20 ms for one row and 21 for 32 is given 32: smaller batches would not shorten any wait.
"""

from typing import Final

from scheduler.core.backends.backend import ModelCapacity
from scheduler.core.backends.limit import longest_batch_s
from scheduler.core.latency.estimate import Estimator, LatencyLine
from scheduler.core.queues.class_queue import ClassQueue

# Of the rate in its largest batches, what a class's own wait_s may not cost.
HALF: Final = 0.5
# The part that rows may lengthen a batch by, without anybody minding: 5 ms more to a person who waits 20.
FREE: Final = 0.25


def most_rows(queue: ClassQueue, capacity: ModelCapacity, estimator: Estimator, merge_key: str | None) -> int:
    """Rows of a batch that holds tickets of this class, at most; at least 1."""
    most = capacity.max_batch_size
    above_s, own_s = queue.present_wait_s, queue.own_wait_s
    line = estimator.line(merge_key)
    if own_s is not None and line.samples:
        most = min(most, max(line.rows_within(_bound_s(line, own_s)), line.rows_for_rate(HALF, most)))
    if above_s is not None:
        most = min(most, estimator.rows_within(merge_key, _bound_s(line, above_s)))
    return max(1, most)


def _bound_s(line: LatencyLine, wait_s: float) -> float:
    """How long a batch may last that a class with this `wait_s` may have to wait for."""
    return max(longest_batch_s(wait_s), (1 + FREE) * line.predict(1))


def usual_batch(queue: ClassQueue, max_batch_size: int, line: LatencyLine) -> tuple[int, float]:
    """A batch of this class under a backlog: its rows, and the seconds each of them costs.

    As `most_rows`, but for the growth to sizes that were not tried yet: under a backlog that is over in a few batches.
    """
    rows: float = max_batch_size
    above_s, own_s = queue.present_wait_s, queue.own_wait_s
    if own_s is not None:
        rows = min(rows, max(line.rows_in(_bound_s(line, own_s)), line.rows_for_rate(HALF, max_batch_size)))
    if above_s is not None:
        rows = min(rows, line.rows_in(_bound_s(line, above_s)))
    whole = max(1, int(rows))
    return whole, min(line.row_s, line.predict(whole) / whole)
