"""Whatever becomes of a request, the driver tells telemetry of its end exactly once."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from scheduler.core.backends import patience
from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.backends.patience import Statement
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import Ticket
from scheduler.driver import BatchError, Driver
from scheduler.telemetry.journey import Journal
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.recorder import Recorder
from scheduler.telemetry.tenants import TenantTable
from tests.driver.held_runner import HeldRunner, settings


class Watched:
    """A driver that tells a recorder, and requests that end as the test says."""

    def __init__(self, **limits: Any) -> None:
        self.runner = HeldRunner()
        self.recorder = Recorder(Measures(TenantTable(4, 0.0)), Journal(100))
        self.driver: Driver[str, str] = Driver(Scheduler(replace(settings(), **limits)), self.runner, self.recorder)
        self.driver.set_backend(BackendState("b", ready=True, models={"m": ModelCapacity(1, 8)}))

    def submit(self, name: str, **about: Any) -> asyncio.Task[str]:
        fields: dict[str, Any] = {"priority_class": "interactive", "tenant": "t", "model": "m", "merge_key": "k"}
        ticket = Ticket(ticket_id=self.driver.next_ticket_id(), **(fields | about))
        now = self.driver.now()
        self.recorder.received(ticket, request_id=name, headers=(), arrived=now, now=now)
        return asyncio.create_task(self.driver.submit(ticket, name))

    def ends(self) -> dict[str, Outcome | None]:
        names = [journey.name for journey in self.recorder.journal]
        assert len(set(names)) == len(names)
        return {journey.name: journey.outcome for journey in self.recorder.journal}


async def settle(*calls: asyncio.Task[str]) -> None:
    await asyncio.gather(*calls, return_exceptions=True)


async def test_completed_and_failed_requests_end_once() -> None:
    watched = Watched()
    calls = [watched.submit(name) for name in ("good", "bad")]
    (await watched.runner.next_batch(0)).done.set_exception(BatchError("one is bad", Verdict.FAILED))
    for number in (1, 2):
        batch = await watched.runner.next_batch(number)
        if batch.requests == ["bad"]:
            batch.done.set_exception(BatchError("bad", Verdict.FAILED))
        else:
            watched.runner.answer(batch)
    await settle(*calls)
    assert watched.ends() == {"good": Outcome.COMPLETED, "bad": Outcome.FAILED}
    assert watched.recorder.measures.retries == {"m": 2}


async def test_cancelled_requests_end_once_queued_or_in_flight(eventually: Any) -> None:
    watched = Watched()
    calls = [watched.submit(name, merge_key=None) for name in ("runs", "lies ready", "waits")]
    await watched.runner.next_batch(1)
    await eventually(lambda: watched.driver.snapshot().queued == 1)
    for call in calls:
        call.cancel()
    await settle(*calls)
    await eventually(lambda: watched.driver.snapshot().in_flight == 0)
    assert watched.ends() == dict.fromkeys(("runs", "lies ready", "waits"), Outcome.CANCELLED)
    assert watched.recorder.measures.batches["b", "m"].verdicts == {Verdict.ABANDONED: 2}


async def test_refused_and_evicted_requests_end_once(eventually: Any) -> None:
    watched = Watched()
    calls = [watched.submit(name, merge_key=None) for name in ("runs", "lies ready", "waits")]
    await watched.runner.next_batch(1)
    await eventually(lambda: watched.driver.snapshot().queued == 1)
    watched.driver.set_backend(BackendState("b", ready=False, models={}))
    await settle(calls[2], late := watched.submit("late"))
    for batch in watched.runner.batches:
        watched.runner.answer(batch)
    await settle(*calls, late)
    assert watched.ends() == {
        "runs": Outcome.COMPLETED,
        "lies ready": Outcome.COMPLETED,
        "waits": Outcome.NO_BACKEND,
        "late": Outcome.NO_BACKEND,
    }


async def test_requests_that_are_left_at_the_end_end_once() -> None:
    watched = Watched()
    calls = [watched.submit(name, merge_key=None) for name in ("runs", "lies ready", "waits")]
    await watched.runner.next_batch(1)
    await watched.driver.close()
    await settle(*calls)
    assert watched.ends() == dict.fromkeys(("runs", "lies ready", "waits"), Outcome.DRAINING)


async def test_backends_and_batches_are_told() -> None:
    watched = Watched()
    watched.driver.set_backend(BackendState("gpu1", ready=True, models={}))
    assert watched.recorder.backends["gpu1"].ready
    call = watched.submit("a")
    watched.runner.answer(await watched.runner.next_batch(0))
    await call
    assert watched.recorder.measures.batches["b", "m"].requests == 1


async def test_expired_request_ends_once() -> None:
    watched = Watched()
    calls = [watched.submit(name, merge_key=None) for name in ("runs", "lies ready")]
    await watched.runner.next_batch(1)
    await settle(watched.submit("late", deadline=watched.driver.now() + 0.01))
    assert watched.ends() == {"late": Outcome.DEADLINE_EXPIRED}
    for batch in watched.runner.batches:
        watched.runner.answer(batch)
    await settle(*calls)


async def test_batch_that_the_core_gave_up_is_told_when_its_call_ends(
    monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> None:
    monkeypatch.setattr(patience, "COLD_HANG_S", 0.01)
    watched = Watched(hang_s=0.01)
    watched.driver.set_backend(BackendState("c", ready=True, models={"m": ModelCapacity(1, 8)}))
    call = watched.submit("a")
    await watched.runner.next_batch(0)
    watched.runner.statement = Statement(live=True, served=False)
    watched.runner.answer(await watched.runner.next_batch(1))
    await settle(call)
    told = watched.recorder.measures.batches
    await eventually(lambda: sum(each.verdicts[Verdict.ABANDONED] for each in told.values()) == 1)
    assert watched.ends() == {"a": Outcome.COMPLETED}
    assert watched.recorder.measures.retries == {"m": 1}
