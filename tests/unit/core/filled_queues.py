"""A class's queue, filled and emptied by hand."""

from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket
from tests.unit.core.build import make_ticket, tenant_settings


def tenant(name: str = "acme", weight: float = 1, max_in_flight: int = 100, **others: object) -> Tenant:
    return Tenant(name, tenant_settings(weight, max_in_flight, **others))


def lift_cap(capped: Tenant) -> None:
    """What the tenant had at the backends has ended."""
    capped.held.tickets = capped.held.rows = 0
    for flow in capped.unblocked():
        flow.unpark()


def push(queue: ClassQueue, owner: Tenant, merge_key: str | None = None, rows: int = 1) -> Ticket:
    ticket = make_ticket("background", owner.name, merge_key=merge_key, rows=rows, queue_bytes=10)
    queue.push(ticket, owner)
    return ticket


def take_first(queue: ClassQueue, cost_s: float = 1.0) -> Ticket | None:
    found = queue.first()
    if found is not None:
        queue.take(*found, cost_s, chosen=True)
    return None if found is None else found[1]


def take_rider(queue: ClassQueue, merge_key: str, cost_s: float = 1.0) -> Ticket | None:
    found = queue.first_of(merge_key)
    if found is not None:
        queue.take(*found, cost_s, chosen=False)
    return None if found is None else found[1]
