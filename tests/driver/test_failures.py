"""Batches that fail, hang, are lost, or break the runner."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from scheduler.core.backends import patience
from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.backends.patience import Statement
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.settings import CoreSettings
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


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> CoreSettings:
    """Settings with which every batch is soon overdue."""
    monkeypatch.setattr(patience, "COLD_HANG_S", 0.01)
    return replace(settings(), hang_s=0.01)


async def test_overdue_batch_is_asked_about_told_of_once_and_answered_when_it_is_done(
    hasty: CoreSettings, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runner = HeldRunner(statement=Statement(live=True, served=True, inferences=7))
    driver = make(runner, hasty)
    call = asyncio.create_task(driver.submit(ticket(driver), "a"))
    batch = await runner.next_batch(0)
    await eventually(lambda: len(runner.inquiries) > 2)
    runner.answer(batch)
    assert await call == "A"
    assert set(runner.inquiries) == {("b", "m")}
    assert len(runner.batches) == 1
    (line,) = caplog.messages
    assert re.fullmatch(
        r"model m on backend b: no answer in [\d.]+ s, where [\d.]+ s were expected \(a\): its server lives and has "
        r"the model, which has done 7 inferences: it is waited for",
        line,
    )


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (Statement(live=False), "its server does not answer either"),
        (Statement(live=True), "its server does not have the model any more"),
    ],
)
async def test_what_an_inquiry_found_is_told(
    hasty: CoreSettings, eventually: Any, caplog: pytest.LogCaptureFixture, statement: Statement, told: str
) -> None:
    runner = HeldRunner(statement=statement)
    driver = make(runner, hasty)
    call = asyncio.create_task(driver.submit(ticket(driver), "a"))
    await eventually(lambda: caplog.messages)
    assert caplog.messages[0].endswith(told)
    await driver.close()
    await asyncio.gather(call, return_exceptions=True)


async def test_batch_whose_model_is_gone_is_sent_elsewhere(hasty: CoreSettings) -> None:
    runner = HeldRunner(statement=Statement(live=True, served=False))
    driver = make(runner, hasty)
    driver.set_backend(BackendState("c", ready=True, models={"m": ModelCapacity(instances=1, max_batch_size=8)}))
    call = asyncio.create_task(driver.submit(ticket(driver), "a"))
    hung = await runner.next_batch(0)
    runner.answer(await runner.next_batch(1))
    assert hung.done.cancelled()
    assert await call == "A"


async def test_batch_over_its_models_limit_is_refused_with_a_line_that_names_who_waited(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = HeldRunner()
    driver = make(runner, replace(settings(), model_hang_s={"m": 0.01}))
    calls = [asyncio.create_task(driver.submit(ticket(driver), request)) for request in "abcde"]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {answer.outcome for answer in answers if isinstance(answer, Refused)} == {Outcome.BACKEND_LOST}
    assert len(runner.batches) == 1
    assert "(a, b, c and 2 more): it is given up (models.m.hang_s)" in caplog.messages[0]
    assert driver.snapshot().in_flight == 0


async def test_parts_of_an_answer_put_the_end_off(eventually: Any) -> None:
    runner = HeldRunner()
    driver = make(runner, replace(settings(), model_hang_s={"m": 3600.0}))
    call = asyncio.create_task(driver.submit(ticket(driver), "a"))
    batch = await runner.next_batch(0)
    before = driver._core.batch(1).heard_at  # type: ignore[union-attr]
    batch.hear()
    assert driver._core.batch(1).heard_at > before  # type: ignore[union-attr]
    runner.answer(batch)
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
