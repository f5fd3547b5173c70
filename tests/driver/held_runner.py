"""A runner whose batches end when the test says so, and a driver with it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.backends.patience import Statement
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import CoreSettings
from scheduler.core.ticket import Ticket
from scheduler.driver import Driver
from tests.unit.core.build import core_settings, tenant_settings


@dataclass
class HeldBatch:
    requests: list[str]
    timeout_s: float | None
    done: asyncio.Future[list[str]]
    hear: Callable[[], None]


@dataclass
class HeldRunner:
    """Batches wait until the test ends them."""

    batches: list[HeldBatch] = field(default_factory=list)
    inquiries: list[tuple[str, str]] = field(default_factory=list)
    statement: Statement = field(default_factory=lambda: Statement(live=True, served=True))
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(
        self, backend: str, requests: Sequence[str], timeout_s: float | None, hear: Callable[[], None]
    ) -> Sequence[str]:
        del backend
        batch = HeldBatch(list(requests), timeout_s, asyncio.get_running_loop().create_future(), hear)
        self.batches.append(batch)
        self.arrived.set()
        return await batch.done

    async def inquire(self, backend: str, model: str) -> Statement:
        self.inquiries.append((backend, model))
        return self.statement

    def name(self, request: str) -> str:
        return request

    async def next_batch(self, number: int) -> HeldBatch:
        while len(self.batches) <= number:
            self.arrived.clear()
            await self.arrived.wait()
        return self.batches[number]

    @staticmethod
    def answer(batch: HeldBatch) -> None:
        batch.done.set_result([request.upper() for request in batch.requests])


def settings(max_in_flight: int = 64, max_queued: int = 100) -> CoreSettings:
    return core_settings(
        default=tenant_settings(max_in_flight=max_in_flight, max_queued=max_queued),
        max_queued=1000,
        queue_bytes=1 << 20,
    )


def make(runner: HeldRunner, of: CoreSettings | None = None) -> Driver[str, str]:
    driver: Driver[str, str] = Driver(Scheduler(of or settings()), runner)
    driver.set_backend(BackendState("b", ready=True, models={"m": ModelCapacity(instances=1, max_batch_size=8)}))
    return driver


def ticket(driver: Driver[str, str], **about: object) -> Ticket:
    fields: dict[str, object] = {"priority_class": "interactive", "tenant": "t", "model": "m", "merge_key": "k"}
    return Ticket(ticket_id=driver.next_ticket_id(), **(fields | about))  # type: ignore[arg-type]
