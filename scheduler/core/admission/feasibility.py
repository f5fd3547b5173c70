"""Whether a ticket can end before its deadline: asked when it arrives, and again when its turn comes.

A ticket that would end too late takes time from others for an answer that nobody reads, and its caller
learns it only at the deadline. So it is refused at once (Clockwork, OSDI 2020: only work that can meet
its deadline is admitted; BentoML's CORK drops the head of the line that cannot make it).

But a refusal is a loss, too, where it is wrong, and of what it refuses the scheduler never learns. So nothing is
refused while an instance is idle for it, nor by what is not known of late (evidence.py). Beyond that there are two
cases.

Nobody waits in its class: only what is certain is refused. With the fastest that was seen of late of what goes before
it and of a batch like its own,

    end  =  first instance free for a further batch  +  what is served before it  +  its own rows

Others wait in its class: they would go before it or after it, and whoever is served in vain takes their time. Of two
the one is let in that is likelier to be in time, by what batches take on average,

    end  =  first instance free for a further batch
            +  whole batches of R * c / n  +  the rows beside it in its own batch  +  its own rows

where the wait counts DOUBT times in overload: for as long as CROWDED batches take no ticket has found an instance idle.

R are the rows that are served before it, n instances, c the seconds a row costs in a batch as large as the bounds of
its class allow (batch_size.py: a class's own `wait_s` and that of those above may keep batches far below the largest).
R is a fluid bound. Until the ticket's turn its tenant has had r rows (what its own tickets before it hold) of the
class, and start-time fair queuing has given every other tenant g that waits min(backlog_g, r * w_g / w) of it
(share.py); the classes share in the same way above that. What arrives later is not counted, but for DOUBT. What is let
in falsely is caught on dispatch (departure.py), whether it would open the batch or ride in it, where only the service
of that batch is left to add.

The sum over tenants would be a walk over all of them. `Backlog` keeps them in classes of backlog per
weight that double from one to the next, so the sum is right but for those in the ticket's own class.
"""

from math import inf
from typing import Final, NamedTuple

from scheduler.core.latency.estimate import LatencyLine
from scheduler.core.latency.evidence import SEEN
from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.queues.lane import Lane
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket

# How many times as long as it looks the wait is taken to be. Under a steady overload what waits settles where the bound
# lies: with one that is too low, most of what is let in is let in in vain, and told so late.
DOUBT: Final = 1.5
# Longer than most busy times below the capacity, short against those beyond it.
CROWDED: Final = 20


class Outlook(NamedTuple):
    """What the ready backends offer of a model.

    Attributes:
        start_at: when an instance is expected to be free for a further batch, monotonic seconds.
        earliest_at: when that is where what runs and lies ready takes as little as was seen of late.
        idle: instances that run nothing.
        instances: over all backends.
        max_batch_size: the largest of any; at least 1.
    """

    start_at: float
    earliest_at: float
    idle: int
    instances: int
    max_batch_size: int


def feasible(lane: Lane, queue: ClassQueue, tenant: Tenant, ticket: Ticket, outlook: Outlook, *, now: float) -> bool:
    """Whether a ticket that arrives now may end in time, behind what waits before it. Asked where KNOWN were seen."""
    if ticket.deadline is None or ticket.tried or outlook.idle > sum([each.queued for each in lane.classes]):
        return True
    evidence, waits = lane.evidence, queue.queued > 0
    average_s = evidence.expected_s(ticket) if waits else None
    if average_s is not None:
        doubt = DOUBT if crowded(lane, now=now) else 1.0
        own_s, part, left_s = average_s, doubt, ticket.deadline - outlook.start_at
    elif evidence.known(SEEN, now=now):
        own_s = evidence.fastest_s(ticket, ticket.rows, now=now)
        part, left_s = evidence.least_part(), ticket.deadline - outlook.earliest_at
    else:
        return True
    behind_s = part * _behind_s(lane, queue, tenant, ticket, outlook, (left_s - own_s) / part)
    if behind_s + own_s <= left_s:
        return True
    return own_s > 0 and behind_s <= left_s and evidence.try_one(ticket, now=now)


def crowded(lane: Lane, *, now: float) -> bool:
    """Whether no ticket has found an instance idle for so long that more comes than can be served."""
    return now - lane.idle_at > CROWDED * lane.estimator.line(None).batch_s


def _behind_s(lane: Lane, queue: ClassQueue, tenant: Tenant, ticket: Ticket, outlook: Outlook, left_s: float) -> float:
    """Seconds that what goes before the ticket takes, or more where that is still within `left_s`."""
    line = lane.estimator.line(ticket.latency_key)
    instances, max_batch_size = outlook.instances, outlook.max_batch_size
    batch_rows, _ = queue.usual or _full(lane, max_batch_size)
    shares = ticket.merge_key is not None and ticket.rows < batch_rows
    # Behind all that waits it would end no sooner, and that costs less to tell.
    before: float = 0
    before_s = 0.0
    for each in lane.classes:
        if rows := each.backlog.rows:
            before += rows
            before_s += rows * (each.usual or _full(lane, max_batch_size))[1]
    behind_s = _wait_s(line, before, before_s / instances, shares, batch_rows)
    if behind_s <= left_s:
        return behind_s
    before, before_s = _ahead(lane, queue, tenant, ticket, max_batch_size)
    return _wait_s(line, before, before_s / instances, shares, batch_rows)


def _wait_s(line: LatencyLine, before: float, before_s: float, shares: bool, batch_rows: int) -> float:
    """Seconds that the rows before a ticket take: those in whole batches before it, and those that share its own."""
    if not shares or not before:
        return before_s
    beside = before % batch_rows
    return before_s * (before - beside) / before + line.predict(int(beside)) - line.predict(0)


def _full(lane: Lane, max_batch_size: int) -> tuple[int, float]:
    """A full batch, for a class that has had none: its rows, and the seconds each of them costs."""
    line = lane.estimator.line(None)
    return max_batch_size, min(line.row_s, line.predict(max_batch_size) / max_batch_size)


def _ahead(lane: Lane, queue: ClassQueue, tenant: Tenant, ticket: Ticket, max_batch_size: int) -> tuple[float, float]:
    """Rows of the model that are served before the ticket is, and the seconds they take on one instance."""
    own = queue.rows_before(ticket, tenant) + ticket.rows
    mine = min(queue.rows_of(tenant), own)
    of_class = own + max(0.0, queue.backlog.served(own / tenant.settings.weight) - mine)
    before, before_s = 0.0, 0.0
    for each in lane.classes:
        rows = max(0.0, of_class - ticket.rows) if each is queue else _rows_of(each, queue, of_class)
        before += rows
        before_s += rows * (each.usual or _full(lane, max_batch_size))[1]
    return before, before_s


def _rows_of(other: ClassQueue, queue: ClassQueue, of_class: float) -> float:
    """Rows that another class is served until this one has had so many; a strict class weighs infinitely."""
    if other.weight == inf:
        return other.backlog.rows if other.rank < queue.rank or queue.weight < inf else 0.0
    return min(other.backlog.rows, of_class * other.weight / queue.weight)
