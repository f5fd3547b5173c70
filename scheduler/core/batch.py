"""Which tickets ride together.

The ticket whose turn it is (class by class share, tenant by tenant share) opens the batch. Further
tickets of the same merge key ride along, more important classes first, within a class in fair order,
each charged to its own class and tenant, up to the model's max_batch_size.

A batch may stand in the way of an arrival that comes before its tickets: of a more important class, or of a tenant of
its own class that was served less. So it may last no longer than T, derived in limit.py from the tightest wait_s of
its class and those above; the learned latency line (estimate.py) turns T into rows. A ticket that is larger than its
bound by itself still goes, alone: it cannot be split.

The price of a class's own wait_s is throughput where a full batch of N rows takes longer than T: n = (T - a) / b rows
then go at a time, at n / (a + b * n) rows a second and instance in place of N / (a + b * N). It is paid while tenants
share the class (class_queue.py); one by itself has nobody to wait for it. It is never more than half: the batch keeps
the n >= N * a / (2 * a + b * N) that half of the full rate takes, and where these take longer than T (a is large), that
is how long a tenant of the same class may have to wait for them. Before the first answer nothing is known and the batch
is full. For a more important class T holds at any price, and from the first batch.

Riders of one merge key must not take the turns of tenants that wait with another. Whoever rides in a batch of its own
class may be ahead of the least tag that waits there by one full batch, by its weight, and the ticket in which it gets
there; then the batch goes as it is. A tenant fills a batch that it opens all the same, and two that cannot ride
together differ in normalised service by at most a full batch of each, divided by their weights, as if each batch were
one ticket of SFQ (share.py). Where only one key waits, and all fit, nothing is held back.

A more important class rides in the batch of a lesser one until it is a full batch ahead of it, by its weight, and pays
for all that rides: what is left of the batch is the lesser one's turn. If it rode without a bound it would take all but
a row of each turn of the others, and if it did not pay it would have more than its share. So with every class
backlogged two differ in normalised service by at most a full batch of each, divided by their weights.

A ticket that does not fit is passed over, once in a batch, and keeps its turn: smaller ones take the places until they
are a full batch ahead of it, as if they waited with another key. Otherwise whoever sends large tickets would keep
everybody's batches small.

Lesser tickets fill the free places of a more important batch where those are free: where they lengthen
it by no more than FREE of what it takes without them. On a GPU that is most places, on a CPU few.
Nothing waits for a batch to fill: a batch is what is there when a place in flight is free.
"""

from dataclasses import dataclass
from math import inf
from typing import Final

from scheduler.core.backend import ModelCapacity
from scheduler.core.class_queue import ClassQueue
from scheduler.core.departure import Departure
from scheduler.core.estimate import Estimator, LatencyLine
from scheduler.core.flow import Flow
from scheduler.core.lane import Lane, Turn
from scheduler.core.limit import longest_batch_s
from scheduler.core.ticket import Ticket

# What a person who waits 20 ms does not notice is 5 ms more.
FREE: Final = 0.25
# Of the rate in its largest batches, what a class's own wait_s may not cost.
HALF: Final = 0.5


@dataclass(slots=True)
class _Filling:
    """A batch while it is put together; `top` is the most important class in it, `estimator` its backend's."""

    capacity: ModelCapacity
    estimator: Estimator
    opened_by: ClassQueue
    top: ClassQueue
    tickets: list[Ticket]
    rows: int
    limit_rows: int


def form(
    lane: Lane,
    turn: Turn,
    capacity: ModelCapacity,
    estimator: Estimator,
    departure: Departure | None,
) -> list[Ticket]:
    """Take the next batch's tickets out of the lane; at least the one whose turn it is.

    Args:
        lane: the model's queues.
        turn: what `lane.next_turn()` gives.
        capacity: what the chosen backend offers of the model.
        estimator: how long the model's batches take there. What tickets cost their tenants and classes does not
            depend on where they happen to go: that is told by the lane's own estimator, of all backends together.
        departure: when the batch would start, and who would be late then; None where nobody has a deadline. The ticket
            whose turn it is has been looked at.
    """
    queue, flow, ticket = turn
    cost_s = _cost_s(lane, ticket)
    lane.virtual.serve(queue, cost_s)
    if flow is None:
        return [queue.retries.popleft()]
    limit_rows = most_rows(queue, capacity, estimator, ticket.merge_key)
    if departure is not None:
        limit_rows = departure.rows_for(ticket, limit_rows)
    queue.usual = usual_batch(queue, max(1, capacity.max_batch_size), lane.estimator.line(None))
    queue.take(flow, ticket, cost_s, chosen=True)
    batch = _Filling(capacity, estimator, queue, queue, [ticket], ticket.rows, limit_rows)
    if ticket.merge_key is not None and batch.rows < limit_rows:
        for rider_queue in lane.classes:
            _fill(lane, rider_queue, ticket.merge_key, batch, departure)
    return batch.tickets


def _fill(lane: Lane, queue: ClassQueue, merge_key: str, batch: _Filling, departure: Departure | None) -> None:
    """Add this class's tickets of the key while they fit."""
    found = queue.first_of(merge_key)
    if found is None:
        return
    opened_by, virtual, row_s = batch.opened_by, lane.virtual, lane.estimator.line(merge_key).row_s
    limit_rows, full_batch_s = _limit_rows(queue, merge_key, batch), batch.capacity.max_batch_size * row_s
    own, lesser = queue is opened_by, queue.rank > opened_by.rank
    most_start = inf if own or lesser else opened_by.start + full_batch_s / queue.weight
    aside: Flow | None = None
    while found is not None and batch.rows < limit_rows:
        flow, ticket = found
        if batch.rows + ticket.rows > limit_rows:
            if aside is not None:
                break
            aside, found = flow, queue.set_aside(flow, merge_key)
            continue
        if (
            queue.start > most_start
            or (own and queue.leads(flow, merge_key, full_batch_s))
            or (aside is not None and flow.start - aside.start > full_batch_s / flow.weight)
        ):
            break
        if departure is not None and ticket.deadline is not None:
            if departure.misses(ticket, batch.rows):
                found = queue.first_of(merge_key)
                continue
            limit_rows = departure.rows_for(ticket, limit_rows)
        cost_s = ticket.rows * row_s
        queue.take(flow, ticket, cost_s, chosen=False)
        if lesser:
            virtual.ride(queue, cost_s, most_s=full_batch_s)
        else:
            virtual.charge(queue, cost_s)
        batch.tickets.append(ticket)
        batch.rows += ticket.rows
        batch.top = batch.top if batch.top.rank <= queue.rank else queue
        batch.limit_rows = limit_rows
        found = queue.first_of(merge_key)
    if aside is not None:
        queue.put_back(aside, merge_key)


def _limit_rows(queue: ClassQueue, merge_key: str, batch: _Filling) -> int:
    """Rows that the batch may have with tickets of this class in it."""
    limit_rows, estimator = batch.limit_rows, batch.estimator
    if queue is not batch.opened_by:
        limit_rows = min(limit_rows, most_rows(queue, batch.capacity, estimator, merge_key))
    if queue.rank > batch.opened_by.rank and batch.top.settings.wait_s is not None:
        limit_rows = min(limit_rows, estimator.rows_for_free(merge_key, batch.rows, FREE))
    return limit_rows


def _cost_s(lane: Lane, ticket: Ticket) -> float:
    """The ticket's service time: its rows' part of a usual batch, or all of the batch that it is by itself."""
    line = lane.estimator.line(ticket.merge_key)
    return line.predict(ticket.rows) if ticket.merge_key is None else ticket.rows * line.row_s


def most_rows(queue: ClassQueue, capacity: ModelCapacity, estimator: Estimator, merge_key: str | None) -> int:
    """Rows of a batch that holds tickets of this class, at most; at least 1."""
    most = capacity.max_batch_size
    above_s, own_s = queue.above_wait_s, queue.own_wait_s
    if own_s is not None and (line := estimator.line(merge_key)).samples:
        most = min(most, max(line.rows_within(longest_batch_s(own_s)), line.rows_for_rate(HALF, most)))
    if above_s is not None:
        most = min(most, estimator.rows_within(merge_key, longest_batch_s(above_s)))
    return max(1, most)


def usual_batch(queue: ClassQueue, max_batch_size: int, line: LatencyLine) -> tuple[int, float]:
    """A batch of this class under a backlog: its rows, and the seconds each of them costs.

    As `most_rows`, but for the growth to sizes that were not tried yet: under a backlog that is over in a few batches.
    """
    rows: float = max_batch_size
    above_s, own_s = queue.above_wait_s, queue.own_wait_s
    if own_s is not None:
        rows = min(rows, max(line.rows_in(longest_batch_s(own_s)), line.rows_for_rate(HALF, max_batch_size)))
    if above_s is not None:
        rows = min(rows, line.rows_in(longest_batch_s(above_s)))
    whole = max(1, int(rows))
    return whole, min(line.row_s, line.predict(whole) / whole)
