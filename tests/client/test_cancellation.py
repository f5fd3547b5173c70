"""Calls that are given up half-way: nothing stays behind, here or at the server."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import fairlane
import grpc
import pytest

from tests.client.fake_kserve import Hang, Refuse

PATIENCE_S = 20


async def until(event):
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


def calls_alive():
    gc.collect()
    # By type: isinstance would ask every object alive for its class, and some answer with a warning.
    return sum(1 for one in gc.get_objects() if issubclass(type(one), grpc.aio.UnaryUnaryCall))


async def test_cancelling_the_task_cancels_the_call_at_the_server(server):
    hang = Hang()
    server.play(hang)
    async with fairlane.aio.Client(server.address) as client:
        task = asyncio.create_task(client.infer("echo", {}))
        await until(hang.started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(hang.ended)
        assert (await client.infer("echo", {"x": [1]}))["x"].tolist() == [1]


async def cancel_calls(server, count):
    # A coroutine of its own: when a channel is closed, grpc.aio looks at the frames of all tasks, and a frame that was
    # looked at keeps what its variables were, the cancelled tasks among them, for as long as it is there.
    hangs = [Hang() for _ in range(count)]
    server.play(*hangs)
    async with fairlane.aio.Client(server.address) as client:
        tasks = [asyncio.create_task(client.infer("echo", {})) for _ in hangs]
        for hang in hangs:
            await until(hang.started)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for hang in hangs:
            await until(hang.ended)


async def test_cancelled_calls_leave_no_task_behind(server):
    await cancel_calls(server, 8)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert calls_alive() == 0


async def test_timeout_of_the_caller_is_a_timeout_and_not_our_error(server):
    hang = Hang()
    server.play(hang)
    async with fairlane.aio.Client(server.address) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.infer("echo", {}), timeout=0.05)
        await until(hang.ended)


async def test_cancel_during_the_wait_for_a_retry_sends_nothing_more(server):
    waiting = asyncio.Event()

    async def sleep(_):
        waiting.set()
        await asyncio.Event().wait()

    server.play(Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_ms=10))
    async with fairlane.aio.Client(server.address, timing=fairlane.timing.AsyncTiming(sleep=sleep)) as client:
        task = asyncio.create_task(client.infer("echo", {}))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(server.seen) == 1


async def test_closing_an_aio_client_ends_its_calls_without_cancelling_their_tasks(server):
    hang = Hang()
    server.play(hang)
    client = fairlane.aio.Client(server.address)
    task = asyncio.create_task(client.infer("m", {}))
    await until(hang.started)
    await client.close()
    with pytest.raises(fairlane.Cancelled, match="closed during the call") as caught:
        await task
    assert (caught.value.model, caught.value.attempts) == ("m", 1)
    await until(hang.ended)


def test_closing_a_sync_client_ends_the_calls_of_other_threads(server):
    hang = Hang()
    server.play(hang)
    client = fairlane.Client(server.address)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.infer, "m", {})
        assert hang.started.wait(PATIENCE_S)
        client.close()
        with pytest.raises(fairlane.Cancelled):
            call.result(PATIENCE_S)
    assert hang.ended.wait(PATIENCE_S)


def test_closing_during_the_wait_for_a_retry_sends_nothing_more(server):
    waiting, go_on = threading.Event(), threading.Event()

    def sleep(_):
        waiting.set()
        go_on.wait(PATIENCE_S)

    server.play(Refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_ms=10))
    client = fairlane.Client(server.address, timing=fairlane.timing.Timing(sleep=sleep))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.infer, "m", {})
        assert waiting.wait(PATIENCE_S)
        client.close()
        go_on.set()
        with pytest.raises(fairlane.ClientClosed):
            call.result(PATIENCE_S)
    assert len(server.seen) == 1
