"""The generator's own gRPC client against a real gRPC server: what it tells is what grpc.aio tells."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from bench.http2.connection import CallStatus, Http2Connection

Handler = Callable[[bytes, Any], Awaitable[bytes]]
METADATA = (("x-priority", "background"), ("x-tenant-id", "batch"))
PATH = "/s.S/Do"


@asynccontextmanager
async def serving(handler: Handler, *options: tuple[str, Any]) -> Any:
    server = grpc.aio.server(options=options)
    method = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s.S", {"Do": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def send(wire: Http2Connection, message: bytes = b"x") -> asyncio.Future[CallStatus]:
    future: asyncio.Future[CallStatus] = asyncio.get_running_loop().create_future()
    wire.call(message, [future.set_result])
    return future


@pytest.fixture
def connect() -> Any:
    wires = []

    async def make(target: str, **options: Any) -> Http2Connection:
        wires.append(await Http2Connection.connect(target, PATH, METADATA, **options))
        return wires[-1]

    yield make
    for wire in wires:
        wire.close()


async def test_message_and_metadata_arrive_and_every_answer_is_told(connect: Any) -> None:
    seen = []

    async def handler(request: bytes, context: Any) -> bytes:
        seen.append((request, dict(context.invocation_metadata())))
        return b"y" * 100_000

    async with serving(handler) as target:
        wire = await connect(target)
        ends = await asyncio.gather(*(send(wire, b"%d" % number * 9000) for number in range(20)))
    assert {end.code for end in ends} == {grpc.StatusCode.OK}
    assert sorted(request for request, _ in seen) == sorted(b"%d" % number * 9000 for number in range(20))
    assert all(metadata["x-priority"] == "background" and metadata["x-tenant-id"] == "batch" for _, metadata in seen)


async def test_refusal_is_told_as_grpc_tells_it(connect: Any) -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("grpc-retry-pushback-ms", "250"),))

    async with serving(handler) as target:
        wire = await connect(target)
        ends = [await send(wire), await send(wire)]
        async with grpc.aio.insecure_channel(target, options=[("grpc.enable_retries", 0)]) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await channel.unary_unary(PATH)(b"x")
    for end in ends:
        assert (end.code, end.details) == (error.value.code(), error.value.details())
        assert end.trailers["grpc-retry-pushback-ms"] == error.value.trailing_metadata()["grpc-retry-pushback-ms"]


async def test_deadline_reaches_the_server_and_ends_the_call_here_too(connect: Any) -> None:
    remaining = []

    async def handler(request: bytes, context: Any) -> bytes:
        remaining.append(context.time_remaining())
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handler) as target:
        wire = await connect(target, timeout_s=0.2)
        end = await send(wire)
        assert end.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 0 < remaining[0] <= 0.2
        assert wire.outstanding == 0


async def test_calls_beyond_the_servers_limit_of_streams_wait_and_are_answered(connect: Any) -> None:
    at_once, most = 0, 0

    async def handler(request: bytes, context: Any) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        for _ in range(5):
            await asyncio.sleep(0)
        at_once -= 1
        return b""

    async with serving(handler, ("grpc.max_concurrent_streams", 2)) as target:
        wire = await connect(target)
        futures = [send(wire) for _ in range(10)]
        assert wire.outstanding == 10
        ends = await asyncio.gather(*futures)
    assert {end.code for end in ends} == {grpc.StatusCode.OK}
    assert most <= 2


async def test_more_bytes_than_the_connections_window_wait_for_it(connect: Any) -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        return b""

    async with serving(handler) as target:
        wire = await connect(target)
        ends = await asyncio.gather(*(send(wire, bytes(60_000)) for _ in range(50)))
    assert {end.code for end in ends} == {grpc.StatusCode.OK}


async def test_message_that_no_stream_takes_is_refused_in_words(connect: Any) -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        return b""

    async with serving(handler) as target:
        wire = await connect(target)
        with pytest.raises(ValueError, match=r"a request of \d+ bytes; the server takes \d+"):
            wire.call(bytes(1 << 27), [print])


async def test_lost_connection_ends_every_call_as_unavailable(connect: Any) -> None:
    started = asyncio.Event()

    async def handler(request: bytes, context: Any) -> bytes:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with serving(handler) as target:
        wire = await connect(target)
        futures = [send(wire) for _ in range(3)]
        await started.wait()
    codes = [end.code for end in await asyncio.gather(*futures)]
    # The server cancels what it had begun, and the rest ends with the connection.
    assert set(codes) <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    assert (await send(wire)).code is grpc.StatusCode.UNAVAILABLE


async def test_nobody_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await Http2Connection.connect("127.0.0.1:1", PATH, METADATA)
