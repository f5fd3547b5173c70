"""Batches that fail, hang, are lost, or break the runner."""

import asyncio
from dataclasses import replace

import pytest

from scheduler.core import breaker
from scheduler.core.backend import BackendState, ModelCapacity
from scheduler.core.outcome import Outcome, Verdict
from scheduler.driver import BatchError, Refused
from tests.driver.held_runner import HeldRunner, make, settings, ticket


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


async def test_lost_batch_is_sent_once_more_and_then_refused_with_pushback() -> None:
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
