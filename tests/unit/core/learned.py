"""A lane whose model's speed is known, filled and emptied by hand."""

from scheduler.core.backends.backend import ModelCapacity
from scheduler.core.batching import batch as batching
from scheduler.core.batching.departure import Departure
from scheduler.core.queues.lane import Lane
from scheduler.core.settings import ClassSettings
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket
from tests.unit.core.build import class_settings, make_ticket

WAIT_S = 0.0503
ONE, TWO = ModelCapacity(1, 8), ModelCapacity(2, 8)


def learned_lane(
    a: float, b: float, wait_s: float | None = WAIT_S, classes: tuple[ClassSettings, ...] | None = None
) -> Lane:
    """Learned, of key `k` and of the model: `a` seconds a batch and `b` a row."""
    lane = Lane("m", classes or (class_settings("interactive", 16, wait_s=wait_s), class_settings("background", 1)))
    for rows in (1, 8) * 10:
        lane.estimator.learn("k", rows, a + b * rows)
    return lane


def flat_lane() -> Lane:
    """Batches that take little longer with more rows: 20 ms a batch and 1 ms a row."""
    return learned_lane(0.020, 0.001)


def form(lane: Lane, capacity: ModelCapacity, departure: Departure | None = None) -> list[Ticket]:
    """The next batch, on a backend of which the lane's own estimates hold."""
    turn = lane.next_turn()
    return [] if turn is None else batching.form(lane, turn, capacity, lane.estimator, departure)


def push(lane: Lane, tenant: Tenant, priority_class: str, count: int, **others: object) -> list[Ticket]:
    (rank,) = (queue.rank for queue in lane.classes if queue.settings.name == priority_class)
    tickets = [make_ticket(priority_class, tenant.name, **{"merge_key": "k"} | others) for _ in range(count)]
    for ticket in tickets:
        lane.push(ticket, rank, tenant)
    return tickets


def sizes(lane: Lane, capacity: ModelCapacity) -> list[int]:
    return [len(tickets) for tickets in iter(lambda: form(lane, capacity), [])]


def learn_long(lane: Lane, a: float, b: float) -> None:
    """Of key `long`: `a` seconds a batch and `b` a row."""
    for rows in (1, 8) * 10:
        lane.estimator.learn("long", rows, a + b * rows)
