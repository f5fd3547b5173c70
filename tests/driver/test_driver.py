"""The asyncio shell: what rides together, refusals, deadlines, drain."""

import asyncio

import pytest

from scheduler.core.outcome import Outcome
from scheduler.driver import Refused
from tests.driver.held_runner import HeldRunner, make, settings, ticket
from tests.unit.core.build import core_settings, tenant_settings


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
