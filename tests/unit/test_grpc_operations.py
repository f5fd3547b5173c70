"""What gRPC holds for a call comes back when the call has ended, whoever gave it up and when."""

import asyncio
import ctypes
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from scheduler.grpc_operations import EXECUTE_BATCH, free_operations

CALLS = 64
MESSAGE = bytes(1 << 20)
HEADER = (("x-large", "x" * (48 << 10)),)
ARRIVED_S = 0.01
Handler = Callable[[bytes, Any], Awaitable[bytes]]
MALLINFO2 = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)
Traffic = Callable[[int], Awaitable[None]]


class MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in MALLINFO2)


def allocated_bytes() -> int:
    """What malloc has given out and not got back."""
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallInfo
    told = mallinfo2()
    return int(told.uordblks + told.hblkhd)


@pytest.fixture(params=[True], ids=["freed"])
def freeing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With our batches, or as gRPC has them; afterwards as before."""
    monkeypatch.setattr(cygrpc, EXECUTE_BATCH, getattr(cygrpc, EXECUTE_BATCH))
    if request.param:
        free_operations()
        free_operations()  # twice is once


@asynccontextmanager
async def echo_of(handler: Handler) -> AsyncIterator[Any]:
    """A callable that is answered by the handler, over a connection."""
    limits = ("grpc.max_metadata_size", "grpc.absolute_max_metadata_size")
    server = grpc.aio.server(options=[(limit, 2 * len(HEADER[0][1])) for limit in limits])
    methods: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.unary_unary("/test/Echo")
    finally:
        await server.stop(None)


async def answers_as_the_caller_leaves(calls: int) -> None:
    """Calls that are cancelled when their answer, MESSAGE, has come and was not looked at yet."""
    answering = asyncio.Event()

    async def answer(request: bytes, context: Any) -> bytes:
        del request, context
        answering.set()
        return MESSAGE

    async with echo_of(answer) as call:
        for _ in range(calls):
            answering.clear()
            calling = call(b"")
            await answering.wait()
            await asyncio.sleep(0)  # the answer leaves
            time.sleep(ARRIVED_S)  # noqa: ASYNC251 - gRPC's own threads carry it; this one must not see it
            calling.cancel()


async def calls_nobody_waits_for(calls: int) -> None:
    """Calls with a large header that are cancelled while the server has them."""
    seen = asyncio.Event()

    async def never(request: bytes, context: Any) -> bytes:
        del request, context
        seen.set()
        await asyncio.Event().wait()
        return b""

    async with echo_of(never) as call:
        for _ in range(calls):
            seen.clear()
            calling = asyncio.ensure_future(waiting(call(b"", metadata=HEADER)))
            await seen.wait()
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling


async def waiting(call: Any) -> Any:
    return await call


@pytest.mark.usefixtures("freeing")
@pytest.mark.parametrize(
    ("traffic", "lost"), [(answers_as_the_caller_leaves, len(MESSAGE)), (calls_nobody_waits_for, len(HEADER[0][1]))]
)
@pytest.mark.parametrize(
    ("freeing", "frees"), [(True, True), (False, False)], indirect=["freeing"], ids=["freed", "as gRPC has it"]
)
async def test_call_that_is_given_up_is_freed(traffic: Traffic, lost: int, *, frees: bool) -> None:
    """Where gRPC alone frees them too, grpc/grpc#43360 is mended: scheduler/grpc_operations.py can go."""
    await traffic(8)  # what stays once
    before = allocated_bytes()
    await traffic(CALLS)
    assert (allocated_bytes() - before < CALLS // 8 * lost) == frees


@pytest.mark.usefixtures("freeing")
async def test_answers_and_errors_arrive() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        if request == b"error":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "far")
        return request[::-1]

    async with echo_of(answer) as call:
        assert await call(b"abc") == b"cba"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(b"error")
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.OUT_OF_RANGE, "far")


@pytest.mark.usefixtures("freeing")
async def test_calls_of_several_event_loops_end_in_their_own() -> None:
    """gRPC may tell of a batch's end in whichever loop polls."""

    async def answer(request: bytes, context: Any) -> bytes:
        del context
        return request

    async def some_calls() -> list[bytes]:
        async with echo_of(answer) as call:
            return [await call(bytes([number])) for number in range(50)]

    elsewhere: list[list[bytes]] = []
    thread = threading.Thread(target=lambda: elsewhere.append(asyncio.run(some_calls())))
    thread.start()
    here = await some_calls()
    await asyncio.to_thread(thread.join)
    assert elsewhere == [here] == [[bytes([number]) for number in range(50)]]


def test_unknown_grpcio_is_left_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delattr(cygrpc, EXECUTE_BATCH)
    free_operations()
    assert not hasattr(cygrpc, EXECUTE_BATCH)
    assert "not known" in caplog.text
