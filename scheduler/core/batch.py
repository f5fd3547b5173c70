"""Which tickets ride together.

The ticket whose turn it is (class by class share, tenant by tenant share) opens the batch. Further
tickets of the same merge key ride along, more important classes first, within a class in fair order,
each charged to its own class and tenant, up to the model's max_batch_size.

A batch with lesser tickets in it may stand in the way of a more important arrival, so it is bounded:
an arrival waits for at most `batches_ahead` batch lengths (limit.py), so each may last

    wait_s / batches_ahead(instances)

where wait_s is the tightest of the classes above; the learned latency line (estimate.py) turns that
into rows. A ticket that is larger than its bound by itself still goes, alone: it cannot be split.
Nothing waits for a batch to fill: a batch is what is there when a place in flight is free.
"""

from dataclasses import dataclass

from scheduler.core.backend import ModelCapacity
from scheduler.core.flows import ClassQueue, Flow
from scheduler.core.lane import Lane
from scheduler.core.limit import batches_ahead
from scheduler.core.ticket import Ticket


@dataclass(slots=True)
class _Filling:
    """A batch while it is put together."""

    tickets: list[Ticket]
    rows: int
    limit_rows: int


def form(lane: Lane, capacity: ModelCapacity) -> list[Ticket]:
    """Take the next batch's tickets out of the lane; empty where nothing may run.

    Args:
        lane: the model's queues.
        capacity: what the chosen backend offers of the model.
    """
    retry = lane.next_retry()
    if retry is not None:
        return [lane.retries.popleft()]
    turn = lane.next_turn()
    if turn is None:
        return []
    queue, flow, ticket = turn
    limit_rows = _limit_rows(lane, queue, capacity, ticket.merge_key)
    _take(lane, queue, flow, ticket, chosen=True)
    batch = _Filling([ticket], ticket.rows, limit_rows)
    if ticket.merge_key is not None:
        for rider_queue in lane.classes:
            _fill(lane, rider_queue, capacity, ticket.merge_key, batch)
    return batch.tickets


def _fill(lane: Lane, queue: ClassQueue, capacity: ModelCapacity, merge_key: str, batch: _Filling) -> None:
    """Add this class's tickets of the key while they fit."""
    limit_rows = min(batch.limit_rows, _limit_rows(lane, queue, capacity, merge_key))
    while batch.rows < limit_rows:
        found = queue.first_of(merge_key)
        if found is None or batch.rows + found[1].rows > limit_rows:
            return
        flow, ticket = found
        _take(lane, queue, flow, ticket, chosen=False)
        batch.tickets.append(ticket)
        batch.rows += ticket.rows
        batch.limit_rows = limit_rows


def _take(lane: Lane, queue: ClassQueue, flow: Flow, ticket: Ticket, *, chosen: bool) -> None:
    cost_s = ticket.rows * lane.estimator.line(ticket.merge_key).row_s
    queue.take(flow, ticket, cost_s, chosen=chosen)
    if chosen:
        lane.virtual.serve(queue, cost_s)
    else:
        lane.virtual.ride(queue, cost_s)


def _limit_rows(lane: Lane, queue: ClassQueue, capacity: ModelCapacity, merge_key: str | None) -> int:
    """Rows of a batch that holds tickets of this class, at most; at least 1."""
    waits = [above.settings.wait_s for above in lane.classes[: queue.rank] if above.settings.wait_s is not None]
    if not waits:
        return capacity.max_batch_size
    bound_s = min(waits) / batches_ahead(capacity.instances)
    return max(1, min(capacity.max_batch_size, lane.estimator.rows_within(merge_key, bound_s)))
