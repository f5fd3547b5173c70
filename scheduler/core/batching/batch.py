"""Which tickets ride together, and what each pays for it.

The ticket whose turn it is (class by class share, tenant by tenant share) opens the batch. Further tickets of the same
merge key ride along, more important classes first, within a class in fair order, up to the rows that it may have
(batch_size.py). Nothing waits for a batch to fill: a batch is what is there when a place in flight is free.

Riders of one merge key must not take the turns of tenants that wait with another. Whoever rides, and so puts off its
class's next turn, may be ahead of the least tag that waits in its class by one full batch, by its weight, and the
ticket in which it gets there; then the batch goes as it is. A tenant fills a batch that it opens all the same, and two
that cannot ride together differ in normalised service by at most a full batch of each, divided by their weights, as if
each batch were one ticket of SFQ (share.py). Where only one key waits, and all fit, nothing is held back.

A more important class rides in the batch of a lesser one until it is a full batch ahead of it, by its weight: what is
left of the batch is the lesser one's turn. If it rode without a bound it would take all but a row of each turn of the
others.

A lesser class rides in the free places of a more important one's batch until it is a full batch ahead of any other that
waits, by its weight; then they stay free. Otherwise whoever fits where others do not would have more than its share.
Where no other waits it takes all places, and pays for no more than a full batch between two turns of its own, so that
its tenants which cannot ride still get its turns. A strict class has no share: in its batches only those that could
ride, too, have to be waited for, as others may get no turn at all.

Places are free where lesser tickets lengthen the batch by no more than FREE of what it takes without them. On a GPU
that is most places, on a CPU few.

In a class with a `wait_s` a tenant that has just come waits for its own batch, too. So where it opens one, another
tenant has free places in it beyond as many rows as the one who opened it: only as far as they lengthen the batch by
little, or as half of the full rate takes (batch_size.py). Tenants that each send a little ride together all the same.

A ticket that does not fit is passed over, once in a batch, and keeps its turn: smaller ones take the places until they
are a full batch ahead of it, as if they waited with another key. Otherwise whoever sends large tickets would keep
everybody's batches small.

What a batch takes is paid by the classes and tenants in it, each for its part of the rows. So with every class
backlogged two differ in normalised service by at most a full batch of each, divided by their weights, whatever their
keys and sizes are. Until the batch is whole a tenant's tickets count as rows of a full one, the least that they cost.
"""

from dataclasses import dataclass, field
from math import inf

from scheduler.core.backends.backend import ModelCapacity
from scheduler.core.batching.batch_size import FREE, HALF, most_rows, usual_batch
from scheduler.core.batching.departure import Departure
from scheduler.core.latency.estimate import Estimator, LatencyLine
from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.queues.flow import Flow
from scheduler.core.queues.lane import Lane, Turn
from scheduler.core.ticket import Ticket


@dataclass(slots=True)
class _Filling:
    """A batch while it is put together.

    Attributes:
        top: the most important class in it.
        estimator: its backend's.
        line: what it will take, of all backends together.
        full_s: what a full batch takes, in seconds.
        row_s: what a row of it takes.
        beside: rows that its execution has without it.
        guest: the flow that opened it, where that has just come to a class with a `wait_s`.
        taken: its tickets, each with its class and its tenant's flow.
        rows_of: their rows by tenant, while there is a guest.
        crowd_rows: rows up to which others may have more of them than the guest; None until one would.
    """

    capacity: ModelCapacity
    estimator: Estimator
    opened_by: ClassQueue
    top: ClassQueue
    line: LatencyLine
    full_s: float
    row_s: float
    limit_rows: int
    beside: int
    guest: Flow | None = None
    rows: int = 0
    rows_of: dict[Flow, int] = field(default_factory=dict)
    crowd_rows: int | None = None
    taken: list[tuple[ClassQueue, Flow, Ticket]] = field(default_factory=list)

    def add(self, queue: ClassQueue, flow: Flow, ticket: Ticket) -> None:
        """Take the ticket out of its class."""
        queue.take(flow, ticket, ticket.rows * self.row_s, chosen=not self.taken)
        self.taken.append((queue, flow, ticket))
        self.rows += ticket.rows
        if self.guest is not None:
            self.rows_of[flow] = self.rows_of.get(flow, 0) + ticket.rows

    def crowds(self, flow: Flow, ticket: Ticket) -> bool:
        """Whether the ticket would give its tenant more rows than the guest has, and make the guest wait for them."""
        if self.guest is None or flow is self.guest:
            return False
        if self.rows_of.get(flow, 0) + ticket.rows <= self.rows_of[self.guest]:
            return False
        if self.crowd_rows is None:
            free_rows = self.estimator.rows_for_free(ticket.latency_key, self.rows, FREE)
            self.crowd_rows = max(free_rows, self.line.rows_for_rate(HALF, self.limit_rows))
        return self.rows + ticket.rows > self.crowd_rows


def form(
    lane: Lane,
    turn: Turn,
    capacity: ModelCapacity,
    estimator: Estimator,
    departure: Departure | None,
    room: tuple[int, int] | None = None,
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
        room: rows of the execution that the batch joins, and how many it may have with it (executions.py); None where
            it is one of its own.
    """
    queue, flow, ticket = turn
    line, full_rows = lane.estimator.line(ticket.latency_key), max(1, capacity.max_batch_size)
    beside, most = (0, None) if room is None else room
    if flow is None:
        lane.virtual.serve(queue, line.predict(ticket.rows))
        return [queue.retries.popleft()]
    limit_rows = most_rows(queue, capacity, estimator, ticket.latency_key) if most is None else most - beside
    if departure is not None:
        limit_rows = departure.rows_for(ticket, limit_rows)
    queue.usual = usual_batch(queue, full_rows, lane.estimator.line(None))
    full_s = line.predict(full_rows)
    guest = flow if flow.fresh and queue.settings.wait_s is not None else None
    batch = _Filling(capacity, estimator, queue, queue, line, full_s, full_s / full_rows, limit_rows, beside, guest)
    batch.add(queue, flow, ticket)
    riders: list[tuple[ClassQueue, int, bool]] = []
    if ticket.merge_key is not None:
        for rider in lane.classes:
            if batch.rows >= batch.limit_rows:
                break
            if not rider.waiting_of(ticket.merge_key):
                continue
            before_rows, least = batch.rows, _least_tag(lane, rider, queue, ticket.merge_key)
            _fill(rider, ticket.merge_key, batch, departure, least)
            if batch.rows > before_rows:
                riders.append((rider, batch.rows - before_rows, rider is not queue and least == inf))
    _charge(lane, batch, ticket.rows, riders)
    return [ticket for _, _, ticket in batch.taken]


def _least_tag(lane: Lane, queue: ClassQueue, opened_by: ClassQueue, merge_key: str) -> float:
    """The tag that this class may be ahead of by a full batch when it rides; inf: there is none."""
    if queue is opened_by:
        return inf
    if queue.rank < opened_by.rank and opened_by.weight < inf:
        return opened_by.start
    least = inf
    for other in lane.classes:
        if (
            other.start < least
            and other is not queue
            and other.waits
            and other.weight < inf
            and (opened_by.weight < inf or other.waiting_of(merge_key))
        ):
            least = other.start
    return least


def _fill(queue: ClassQueue, merge_key: str, batch: _Filling, departure: Departure | None, least: float) -> None:
    """Add this class's tickets of the key while they fit, and until its tag is a full batch ahead of `least`."""
    found, full_s = queue.first_of(merge_key), batch.full_s
    limit_rows, start, row_tag = _limit_rows(queue, batch), queue.start, batch.row_s / queue.weight
    most_start = least + full_s / queue.weight
    others_have_turns = queue is batch.opened_by or (least < inf and batch.opened_by.weight < inf)
    aside: Flow | None = None
    while found is not None and batch.rows < limit_rows:
        flow, ticket = found
        if batch.rows + ticket.rows > limit_rows:
            if aside is not None:
                break
            aside, found = flow, queue.set_aside(flow, merge_key)
            continue
        if (
            start > most_start
            or (others_have_turns and queue.leads(flow, merge_key, full_s))
            or (aside is not None and flow.start - aside.start > full_s / flow.weight)
            or (queue is batch.opened_by and batch.crowds(flow, ticket))
        ):
            break
        if departure is not None and ticket.deadline is not None:
            if departure.misses(ticket, batch.rows):
                found = queue.first_of(merge_key)
                continue
            limit_rows = departure.rows_for(ticket, limit_rows)
        batch.add(queue, flow, ticket)
        start += ticket.rows * row_tag
        batch.top = batch.top if batch.top.rank <= queue.rank else queue
        batch.limit_rows = limit_rows
        found = queue.first_of(merge_key)
    if aside is not None:
        queue.put_back(aside, merge_key)


def _charge(lane: Lane, batch: _Filling, first_rows: int, riders: list[tuple[ClassQueue, int, bool]]) -> None:
    """Each class and tenant pays for its rows what a row of this batch takes."""
    rows = batch.beside + batch.rows
    row_s = batch.line.predict(rows) / rows
    lane.virtual.serve(batch.opened_by, first_rows * row_s)
    for queue, rows, free in riders:
        if free:
            lane.virtual.ride(queue, rows * row_s, most_s=batch.full_s)
        else:
            lane.virtual.charge(queue, rows * row_s)
    if batch.opened_by.weight == inf:
        lane.follow()
    more_s = row_s - batch.row_s
    if more_s > 0.0:
        for queue, flow, ticket in batch.taken:
            queue.charge_more(flow, ticket.rows * more_s)


def _limit_rows(queue: ClassQueue, batch: _Filling) -> int:
    """Rows that the batch may have with tickets of this class in it."""
    limit_rows, estimator, key = batch.limit_rows, batch.estimator, batch.taken[0][2].latency_key
    if queue is not batch.opened_by:
        limit_rows = min(limit_rows, most_rows(queue, batch.capacity, estimator, key))
    if queue.rank > batch.opened_by.rank and batch.top.settings.wait_s is not None:
        limit_rows = min(limit_rows, estimator.rows_for_free(key, batch.rows, FREE))
    return limit_rows
