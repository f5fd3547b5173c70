"""Short ways to make what the core is fed with, for the tests of the core, the simulation and the state machine."""

from collections.abc import Mapping
from itertools import count
from typing import Any

from scheduler.core.backends.backend import BackendState, Batch, ModelCapacity
from scheduler.core.events import Dispatch, Event
from scheduler.core.outcome import Verdict
from scheduler.core.rate import Rate, RateUnit
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import Cap, ClassSettings, CoreSettings, TenantSettings
from scheduler.core.ticket import Ticket, TicketState

_ticket_ids = count(1)


def tenant_settings(
    weight: float = 1,
    max_in_flight: int | None = 1000,
    max_queued: int = 100_000,
    *,
    max_rows_in_flight: int | None = None,
    max_queue_bytes: int | None = None,
    model_caps: Mapping[str, Cap] | None = None,
    rate_per_s: float | None = None,
    burst: float = 1,
    unit: RateUnit = RateUnit.REQUESTS,
) -> TenantSettings:
    rate = None if rate_per_s is None else Rate(unit, rate_per_s, burst)
    return TenantSettings(
        weight, max_in_flight, max_queued, max_rows_in_flight, max_queue_bytes, model_caps or {}, rate
    )


def class_settings(
    name: str,
    weight: float = 1,
    *,
    max_queued: int = 100_000,
    wait_s: float | None = None,
    max_queue_bytes: int | None = None,
    strict: bool = False,
) -> ClassSettings:
    return ClassSettings(name, weight, max_queued, wait_s, max_queue_bytes, strict)


INTERACTIVE = class_settings("interactive", 16, wait_s=0.05)
BACKGROUND = class_settings("background", 1)
# For what is not about waits: nothing is held.
UNHURRIED = (class_settings("interactive", 16), BACKGROUND)
ONE_CLASS = (class_settings("interactive"),)


def core_settings(
    classes: tuple[ClassSettings, ...] = (INTERACTIVE, BACKGROUND),
    tenants: Mapping[str, TenantSettings] | None = None,
    default: TenantSettings | None = None,
    max_queued: int = 200_000,
    queue_bytes: int = 1_000_000,
    max_tenants: int = 100_000,
    *,
    hang_s: float = 5.0,
    outage_s: float = 0.0,
    model_hang_s: Mapping[str, float] | None = None,
    model_in_flight: Mapping[str, int] | None = None,
    max_sequences: int = 1_000,
) -> CoreSettings:
    own = default or tenant_settings()
    return CoreSettings(
        classes,
        tenants or {},
        own,
        max_tenants,
        max_queued,
        queue_bytes,
        hang_s=hang_s,
        outage_s=outage_s,
        model_hang_s=model_hang_s or {},
        model_in_flight=model_in_flight or {},
        max_sequences=max_sequences,
    )


def make_ticket(priority_class: str = "interactive", tenant: str = "acme", model: str = "m", **others: Any) -> Ticket:
    return Ticket(others.pop("ticket_id", next(_ticket_ids)), priority_class, tenant, model, **others)


def queued_ticket(priority_class: str = "interactive", tenant: str = "acme", **others: Any) -> Ticket:
    """A ticket in the state that a queue gives it."""
    ticket = make_ticket(priority_class, tenant, **others)
    ticket.state = TicketState.QUEUED
    return ticket


def backend_state(
    name: str = "gpu0",
    *,
    ready: bool = True,
    instances: int = 1,
    max_batch_size: int = 8,
    models: tuple[str, ...] = ("m",),
    **capacity: Any,
) -> BackendState:
    return BackendState(name, ready, dict.fromkeys(models, ModelCapacity(instances, max_batch_size, **capacity)))


def make_batch(batch_id: int = 1, tickets: tuple[Ticket, ...] = (), **others: Any) -> Batch:
    values = {"backend": "gpu0", "model": "m", "latency_key": None, "estimate_s": 0.01, "dispatched_at": 0.0}
    values |= {"rows": sum(ticket.rows for ticket in tickets), "started_at": None} | others
    return Batch(batch_id=batch_id, tickets=tickets, **values)


def ready_core(*states: BackendState, **settings: Any) -> Scheduler:
    """A scheduler with these backends; none named: `gpu0` with one instance of `m`."""
    core = Scheduler(core_settings(**settings))
    for state in states or (backend_state(),):
        core.set_backend(state, now=0.0)
    return core


def pull(core: Scheduler) -> list[Event]:
    """Every event there is."""
    events = []
    while (event := core.next_event()) is not None:
        events.append(event)
    return events


def dispatched(core: Scheduler) -> list[Dispatch]:
    """Every event there is; all of them dispatches."""
    events = pull(core)
    assert all(isinstance(event, Dispatch) for event in events)
    return [event for event in events if isinstance(event, Dispatch)]


def submit(core: Scheduler, count: int = 1, *, now: float = 1.0, **ticket: Any) -> list[Ticket]:
    tickets = [make_ticket(**ticket) for _ in range(count)]
    for each in tickets:
        core.submit(each, now=now)
    return tickets


def failed_pair(core: Scheduler, **ticket: Any) -> tuple[Ticket, Ticket]:
    """Two tickets that rode in one batch, which failed at 2.0; nothing is pulled since."""
    pair = submit(core, 2, merge_key="k", **ticket)
    (batch,) = dispatched(core)
    assert core.complete(batch.batch_id, Verdict.FAILED, now=2.0) == []
    return pair[0], pair[1]
