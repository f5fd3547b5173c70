"""A service of all four forms, at either wire, for the tests of what both must do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

pytest.importorskip("scheduler.wire._h2", reason="the extension is not built")

from scheduler.wire.server import Server
from scheduler.wire.sizes import ServerSizes

SIZES = ServerSizes(
    message_bytes=1 << 20,
    metadata_bytes=16384,
    calls=1000,
    keepalive_s=60,
    ping_timeout_s=20,
    client_ping_s=5,
    idle_s=3600,
    age_s=None,
    grace_s=None,
    handshake_s=20,
)


class Handlers:
    """What the tests call; `contexts` are those of the calls, `ended` how their tasks ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.begun = 0
        self.release = asyncio.Event()
        self.got = 0

    async def echo(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-size", str(len(request))), ("x-raw-bin", b"\0\xff" + request[:4])))
        return request

    async def number(self, request: int, context: Any) -> bytes:
        return b"%d" % (request + 1)

    async def told(self, request: bytes, context: Any) -> bytes:
        """What the context tells."""
        remaining = context.time_remaining()
        sent = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-")]
        return repr((context.peer().rpartition(":")[0], remaining is not None and 0 < remaining <= 31, sent)).encode()

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.begun += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("answered")
        return request

    async def refuse(self, request: bytes, context: Any) -> bytes:
        trailers = (("x-why", "because"), ("x-why-bin", b"\0\1\2"))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode(), trailers)
        raise AssertionError

    async def fail(self, request: bytes, context: Any) -> bytes:
        raise ValueError("a fault of the handler")

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def join(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([each async for each in requests])

    async def converse(self, requests: AsyncIterator[bytes], context: Any) -> None:
        async for each in requests:
            self.got += 1
            if each == b"abort":
                await context.abort(grpc.StatusCode.ABORTED, "told to")
            await context.write(each)

    async def flood(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            for _ in range(1000):
                self.got += 1
                yield bytes(100_000)
        except (asyncio.CancelledError, GeneratorExit):
            self.ended.append("cancelled")
            raise

    async def pour(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for each in self.flood(b"", context):
            yield each

    async def hear_late(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield await self.deaf(requests, context)

    async def deaf(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.begun += 1
        await self.release.wait()
        return b"%d" % len([each async for each in requests])

    def table(self) -> dict[str, Any]:
        return {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo, bytes, bytes),
            "Number": grpc.unary_unary_rpc_method_handler(self.number, int, bytes),
            "Told": grpc.unary_unary_rpc_method_handler(self.told, bytes, bytes),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait, bytes, bytes),
            "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse, bytes, bytes),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail, bytes, bytes),
            "Count": grpc.unary_stream_rpc_method_handler(self.count, bytes, bytes),
            "Join": grpc.stream_unary_rpc_method_handler(self.join, bytes, bytes),
            "Converse": grpc.stream_stream_rpc_method_handler(self.converse, bytes, bytes),
            "Flood": grpc.unary_stream_rpc_method_handler(self.flood, bytes, bytes),
            "Pour": grpc.stream_stream_rpc_method_handler(self.pour, bytes, bytes),
            "HearLate": grpc.stream_stream_rpc_method_handler(self.hear_late, bytes, bytes),
            "Deaf": grpc.stream_unary_rpc_method_handler(self.deaf, bytes, bytes),
        }


@contextlib.asynccontextmanager
async def grpcio_serving(handlers: Handlers, port: int = 0) -> AsyncIterator[str]:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", SIZES.message_bytes),
            ("grpc.max_send_message_length", SIZES.message_bytes),
            ("grpc.max_metadata_size", SIZES.metadata_bytes),
            ("grpc.absolute_max_metadata_size", SIZES.metadata_bytes),
        ]
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", handlers.table()),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def native_serving(handlers: Handlers, sizes: ServerSizes = SIZES, port: int = 0) -> AsyncIterator[str]:
    server = Server(sizes)
    server.add_registered_method_handlers("s", handlers.table())
    port = await server.bind("127.0.0.1", port)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


SERVING = {"grpcio": grpcio_serving, "native": native_serving}


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call
    return ended.value.code(), ended.value.details() or ""
