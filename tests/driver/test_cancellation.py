"""Callers that leave, at every moment of their request."""

import asyncio
from typing import Any

import pytest

from scheduler.driver import Refused
from tests.driver.held_runner import HeldRunner, make, ticket


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
