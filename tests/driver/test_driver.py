"""The asyncio shell, with a runner whose batches end when the test says so."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from scheduler.core import breaker
from scheduler.core.backend import BackendState, ModelCapacity
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import CoreSettings
from scheduler.core.ticket import Ticket
from scheduler.driver import BatchError, Driver, Refused
from tests.unit.core.build import core_settings, tenant_settings


@dataclass
class HeldBatch:
    requests: list[str]
    timeout_s: float | None
    done: asyncio.Future[list[str]]


@dataclass
class HeldRunner:
    """Batches wait until the test ends them."""

    batches: list[HeldBatch] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, backend: str, requests: Sequence[str], timeout_s: float | None) -> Sequence[str]:
        del backend
        batch = HeldBatch(list(requests), timeout_s, asyncio.get_running_loop().create_future())
        self.batches.append(batch)
        self.arrived.set()
        return await batch.done

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


async def test_requests_of_one_loop_turn_ride_together_and_get_their_own_answers() -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [asyncio.create_task(driver.submit(ticket(driver), request)) for request in "abc"]
    batch = await runner.next_batch(0)
    assert batch.requests == ["a", "b", "c"]
    runner.answer(batch)
    assert await asyncio.gather(*calls) == ["A", "B", "C"]


async def test_full_queue_refuses_with_pushback() -> None:
    driver = make(HeldRunner(), settings(max_queued=1))
    calls = [asyncio.create_task(driver.submit(ticket(driver, merge_key=None), str(number))) for number in range(4)]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    error = done.pop().exception()
    assert isinstance(error, Refused)
    assert error.outcome is Outcome.TENANT_QUEUE_FULL
    assert error.pushback_s is not None
    await driver.close()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_refusal_on_arrival_takes_no_turn_of_the_loop() -> None:
    driver = make(HeldRunner(), settings(max_queued=1))
    queued = asyncio.create_task(driver.submit(ticket(driver), "a"))
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        driver.submit(ticket(driver), "b").send(None)
    assert refused.value.outcome is Outcome.TENANT_QUEUE_FULL
    await driver.close()
    await asyncio.gather(queued, return_exceptions=True)


async def test_refusal_on_arrival_does_not_part_those_who_arrive_in_one_turn() -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [asyncio.create_task(driver.submit(ticket(driver), "a"))]
    calls.append(asyncio.create_task(driver.submit(ticket(driver, model="unknown"), "x")))
    calls.append(asyncio.create_task(driver.submit(ticket(driver), "b")))
    batch = await runner.next_batch(0)
    assert batch.requests == ["a", "b"]
    runner.answer(batch)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answers[0], answers[2]] == ["A", "B"]
    assert isinstance(answers[1], Refused)


async def test_refusal_on_arrival_answers_those_who_ended_before_it() -> None:
    driver = make(HeldRunner(), core_settings(default=tenant_settings(max_queued=100), max_queued=1))
    held = [asyncio.create_task(driver.submit(ticket(driver, merge_key=None), str(number))) for number in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
    lesser = asyncio.create_task(driver.submit(ticket(driver, priority_class="background", merge_key=None), "l"))
    more = asyncio.create_task(driver.submit(ticket(driver, merge_key=None), "m"))
    refused = asyncio.create_task(driver.submit(ticket(driver, merge_key=None), "r"))
    errors = await asyncio.gather(lesser, refused, return_exceptions=True)
    assert [error.outcome for error in errors if isinstance(error, Refused)] == [Outcome.DISPLACED, Outcome.QUEUE_FULL]
    await driver.close()
    await asyncio.gather(*held, more, return_exceptions=True)


async def test_batch_that_everybody_left_before_its_task_began_ends() -> None:
    driver = make(HeldRunner())
    call = asyncio.create_task(driver.submit(ticket(driver), "a"))
    await asyncio.sleep(0)
    # All in the next turn of the loop: the batch is made, its caller leaves, and somebody is refused.
    call.cancel()
    with pytest.raises(Refused):
        await asyncio.create_task(driver.submit(ticket(driver, model="unknown"), "x"))
    await asyncio.gather(call, return_exceptions=True)
    assert await driver.drain(timeout_s=5)
    assert driver.snapshot().in_flight == 0


async def test_deadline_in_the_queue_is_answered_by_the_timer() -> None:
    runner = HeldRunner()
    driver = make(runner)
    held = [asyncio.create_task(driver.submit(ticket(driver, merge_key=None), str(number))) for number in range(2)]
    await runner.next_batch(1)
    with pytest.raises(Refused) as refused:
        await driver.submit(ticket(driver, deadline=driver.now() + 0.01), "late")
    assert refused.value.outcome is Outcome.DEADLINE_EXPIRED
    assert refused.value.pushback_s is None
    for batch in runner.batches:
        runner.answer(batch)
    await asyncio.gather(*held)


async def test_what_remains_of_the_deadline_is_forwarded() -> None:
    runner = HeldRunner()
    driver = make(runner)
    call = asyncio.create_task(driver.submit(ticket(driver, deadline=driver.now() + 100), "a"))
    batch = await runner.next_batch(0)
    assert batch.timeout_s is not None
    assert 90 < batch.timeout_s <= 100
    runner.answer(batch)
    await call


async def test_one_rider_without_deadline_leaves_the_batch_without_one() -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [
        asyncio.create_task(driver.submit(ticket(driver, deadline=deadline), "a"))
        for deadline in (driver.now() + 100, None)
    ]
    batch = await runner.next_batch(0)
    assert batch.timeout_s is None
    runner.answer(batch)
    await asyncio.gather(*calls)


async def test_failed_batch_is_tried_ticket_by_ticket_and_only_the_guilty_one_fails() -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [asyncio.create_task(driver.submit(ticket(driver), request)) for request in ("good", "bad", "fine")]
    (await runner.next_batch(0)).done.set_exception(BatchError("one of them is bad", Verdict.FAILED))
    for number in (1, 2, 3):
        batch = await runner.next_batch(number)
        if batch.requests == ["bad"]:
            batch.done.set_exception(BatchError("bad token", Verdict.FAILED))
        else:
            runner.answer(batch)
    good, bad, fine = await asyncio.gather(*calls, return_exceptions=True)
    assert (good, fine) == ("GOOD", "FINE")
    assert isinstance(bad, BatchError)
    assert str(bad) == "bad token"


async def test_lost_batch_is_sent_once_more_and_then_refused_with_pushback(eventually: Any) -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [asyncio.create_task(driver.submit(ticket(driver), request)) for request in "ab"]
    (await runner.next_batch(0)).done.set_exception(BatchError("gone", Verdict.LOST))
    runner.answer(probe := await runner.next_batch(1))
    (await runner.next_batch(2)).done.set_exception(BatchError("gone", Verdict.LOST))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [len(probe.requests), len(runner.batches)] == [1, 3]
    assert answers[0] == "A"
    assert isinstance(answers[1], Refused)
    assert answers[1].outcome is Outcome.BACKEND_LOST
    assert answers[1].pushback_s is not None


async def test_deadline_in_flight_is_answered_at_once_and_the_call_cancelled() -> None:
    runner = HeldRunner()
    driver = make(runner)
    with pytest.raises(Refused) as refused:
        await driver.submit(ticket(driver, deadline=driver.now() + 0.01), "slow")
    assert refused.value.outcome is Outcome.DEADLINE_EXPIRED
    (batch,) = runner.batches
    with pytest.raises(asyncio.CancelledError):
        await batch.done
    assert await driver.drain(timeout_s=60)
    assert driver.snapshot().in_flight == 0


async def test_call_is_cancelled_when_its_last_caller_leaves_and_not_before() -> None:
    runner = HeldRunner()
    driver = make(runner)
    first, last = (asyncio.create_task(driver.submit(ticket(driver), request)) for request in "ab")
    batch = await runner.next_batch(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not batch.done.cancelled()
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    with pytest.raises(asyncio.CancelledError):
        await batch.done
    assert await driver.drain(timeout_s=60)


async def test_hung_batch_is_given_up_and_its_request_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "COLD_HANG_S", 0.01)
    runner = HeldRunner()
    driver = make(runner, replace(settings(), hang_s=0.01))
    driver.set_backend(BackendState("c", ready=True, models={"m": ModelCapacity(instances=1, max_batch_size=8)}))
    call = asyncio.create_task(driver.submit(ticket(driver), "a"))
    hung = await runner.next_batch(0)
    runner.answer(await runner.next_batch(1))
    assert hung.done.cancelled()
    assert await call == "A"


async def test_runner_with_too_few_responses_is_an_error_and_not_somebody_elses_answer() -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [asyncio.create_task(driver.submit(ticket(driver), request)) for request in "ab"]
    for number in range(3):  # the batch, and then each alone
        (await runner.next_batch(number)).done.set_result([])
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(answer) for answer in answers} == {"expected 1 responses, got 0"}


async def test_unexpected_exception_of_the_runner_is_answered_and_frees_the_place() -> None:
    runner = HeldRunner()
    driver = make(runner)
    call = asyncio.create_task(driver.submit(ticket(driver), "a"))
    (await runner.next_batch(0)).done.set_exception(KeyError("surprise"))
    with pytest.raises(KeyError):
        await call
    assert driver.snapshot().in_flight == 0


async def test_cancelled_caller_frees_its_place_in_the_queue_at_once(eventually: Any) -> None:
    runner = HeldRunner()
    driver = make(runner)
    held = [asyncio.create_task(driver.submit(ticket(driver, merge_key=None), str(number))) for number in range(2)]
    await runner.next_batch(1)
    waiting = asyncio.create_task(driver.submit(ticket(driver, merge_key=None), "w"))
    await eventually(lambda: driver.snapshot().queued == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert driver.snapshot().queued == 0
    assert driver.snapshot().ended["CANCELLED"] == 1
    for batch in runner.batches:
        runner.answer(batch)
    await asyncio.gather(*held)


async def test_caller_that_leaves_between_dispatch_and_send_takes_nobody_along() -> None:
    runner = HeldRunner()
    driver = make(runner)
    first = asyncio.create_task(driver.submit(ticket(driver), "a"))
    second = asyncio.create_task(driver.submit(ticket(driver), "b"))
    batch = await runner.next_batch(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    runner.answer(batch)
    assert await second == "B"
    assert driver.snapshot().in_flight == 0


async def test_tenant_cap_holds_and_blocks_nobody_else() -> None:
    runner = HeldRunner()
    driver = make(runner, settings(max_in_flight=1))
    calls = [asyncio.create_task(driver.submit(ticket(driver, tenant="loud"), f"l{n}")) for n in range(3)]
    calls.append(asyncio.create_task(driver.submit(ticket(driver, tenant="quiet"), "q")))
    assert sorted((await runner.next_batch(0)).requests) == ["l0", "q"]
    for number in range(3):
        batch = await runner.next_batch(number)
        assert sum(request.startswith("l") for request in batch.requests) <= 1
        runner.answer(batch)
    assert await asyncio.gather(*calls) == ["L0", "L1", "L2", "Q"]


async def test_drain_refuses_new_tickets_and_finishes_the_accepted() -> None:
    runner = HeldRunner()
    driver = make(runner)
    accepted = asyncio.create_task(driver.submit(ticket(driver), "a"))
    batch = await runner.next_batch(0)
    draining = asyncio.create_task(driver.drain(timeout_s=60))
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await driver.submit(ticket(driver), "b")
    assert refused.value.outcome is Outcome.DRAINING
    runner.answer(batch)
    assert await accepted == "A"
    assert await draining


async def test_drain_that_runs_out_of_time_says_so_and_close_ends_what_is_left() -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [asyncio.create_task(driver.submit(ticket(driver, merge_key=None), str(n))) for n in range(3)]
    await runner.next_batch(1)
    assert not await driver.drain(timeout_s=0.01)
    await driver.close()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer.outcome for answer in answers if isinstance(answer, Refused)] == [Outcome.DRAINING] * 3
    assert len(runner.batches) == 2
    assert driver.snapshot().in_flight == 0


async def test_last_backend_lost_evicts_what_waits() -> None:
    runner = HeldRunner()
    driver = make(runner)
    calls = [asyncio.create_task(driver.submit(ticket(driver, merge_key=None), str(n))) for n in range(3)]
    await runner.next_batch(1)
    driver.set_backend(BackendState("b", ready=False, models={}))
    with pytest.raises(Refused) as refused:
        await calls[2]
    assert refused.value.outcome is Outcome.NO_BACKEND
    assert refused.value.pushback_s is not None
    for batch in runner.batches:
        runner.answer(batch)
    await asyncio.gather(*calls[:2])
