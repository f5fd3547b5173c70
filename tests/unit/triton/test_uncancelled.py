"""Calls that go on though nobody waits for them."""

import asyncio
from typing import Any

import pytest

from scheduler.driver import NOBODY_WAITS
from scheduler.triton import uncancelled
from scheduler.triton.uncancelled import UncancelledCalls, Unwanted, cancellable


@pytest.mark.parametrize(
    ("version", "survives"),
    [
        ("2.51.0", False),
        ("2.56.0", False),
        ("2.57.0", True),
        ("v2.58.1", True),
        ("2.57.0dev", False),
        ("3.0.0", True),
        ("2.57", False),
        ("", False),
        ("٢.57.0", False),
    ],
)
def test_releases_from_the_repaired_one_on_survive(version: str, survives: bool) -> None:
    assert cancellable(version) is survives


def begun(calls: UncancelledCalls, call: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(calls.answer(call, lambda: None))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_answer_and_an_error_come_through() -> None:
    loop = asyncio.get_running_loop()
    answered, failed = loop.create_future(), loop.create_future()
    calls = UncancelledCalls()
    tasks = begun(calls, answered), begun(calls, failed)
    answered.set_result("answer")
    failed.set_exception(ValueError("no"))
    assert await tasks[0] == "answer"
    with pytest.raises(ValueError, match="no"):
        await tasks[1]


async def test_where_nobody_waits_it_ends_with_the_call() -> None:
    call = asyncio.get_running_loop().create_future()
    task = begun(UncancelledCalls(), call)
    await turns()
    task.cancel(NOBODY_WAITS)
    await turns()
    assert not task.done()
    assert not call.cancelled()
    call.set_exception(ValueError("dropped"))
    with pytest.raises(Unwanted):
        await task
    assert not task.cancelled()


@pytest.mark.parametrize("before", [(), (NOBODY_WAITS,)])
async def test_cancelled_for_good_it_ends_at_once_and_the_call_goes_on(before: tuple[str, ...]) -> None:
    calls = UncancelledCalls()
    call = asyncio.get_running_loop().create_future()
    task = begun(calls, call)
    await turns()
    for message in before:
        task.cancel(message)
        await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not call.cancelled()
    assert len(calls._left) == 1
    call.set_result("dropped")
    await turns()
    assert not calls._left


async def test_a_call_that_is_cancelled_under_it_is_no_cancellation_of_the_task() -> None:
    call = asyncio.get_running_loop().create_future()
    task = begun(UncancelledCalls(), call)
    await turns()
    call.cancel()
    await turns()
    assert task.cancelled()
    assert not task.cancelling()


async def test_no_more_hang_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncancelled, "LEFT_MOST", 2)
    calls = UncancelledCalls()
    hanging = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for call in hanging:
        task = begun(calls, call)
        await turns()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await turns()
    assert [call.cancelled() for call in hanging] == [True, False, False]
    for call in hanging[1:]:
        call.set_result(None)
    await turns()
