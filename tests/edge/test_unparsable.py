"""Messages that are none, and headers that are no text: answered in words, and no log grows with them."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from bench.http2.connection import CallStatus, Http2Connection
from scheduler.triton.fake import FakeModel, FakeTriton
from tests.serving import serve_process

SERVICE = "/inference.GRPCInferenceService"
NO_MESSAGE = b"\xff\xff\xff"


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive", "RepositoryModelLoad", "ModelStatistics"])
async def test_what_is_no_message_is_refused_in_words(serve: Any, method: str) -> None:
    served = await serve()
    async with grpc.aio.insecure_channel(served.addresses.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=f"{method}: expected a message of the protocol") as caught:
            await channel.unary_unary(f"{SERVICE}/{method}")(NO_MESSAGE, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(tuple(caught.value.trailing_metadata()))["fairlane-reason"] == "INVALID_REQUEST"


async def test_what_is_no_message_ends_its_stream_when_what_came_before_is_answered(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await serve()
    served.triton.hold()
    good = request_of([[1]]).SerializeToString()
    async with grpc.aio.insecure_channel(served.addresses.grpc) as channel:
        call = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(timeout=60)
        for each in (good, good, NO_MESSAGE, good):
            await call.write(each)
        await eventually(lambda: served.app.snapshot().in_flight + served.app.snapshot().queued == 2)
        served.triton.release()
        answers = [await call.read(), await call.read()]
        assert all(isinstance(answer, bytes) for answer in answers)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def no_text_in_headers(address: str, message: bytes, count: int) -> None:
    """So many calls with a header that is no UTF-8, over a connection that does not mind."""
    metadata: Any = [(b"x-tenant-id", b"\xff\xfe" * 100)]
    wire = await Http2Connection.connect(address, f"{SERVICE}/ModelInfer", metadata, timeout_s=30)
    ended: asyncio.Queue[CallStatus] = asyncio.Queue()
    wire.call(message, [ended.put_nowait] * count)
    for _ in range(count):
        assert (await ended.get()).code in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    wire.close()


async def test_log_does_not_grow_with_what_strangers_send(tmp_path: Path, request_of: Any) -> None:
    log = tmp_path / "serve.err"
    triton = FakeTriton((FakeModel("identity"),))
    backend = await triton.start()
    try:
        async with serve_process(log, "--backend", backend) as serving:
            before = log.stat().st_size
            async with grpc.aio.insecure_channel(serving.grpc) as channel:
                for path in (f"{SERVICE}/ModelInfer", "/grpc.health.v1.Health/Check"):
                    calls = (channel.unary_unary(path)(NO_MESSAGE, timeout=30) for _ in range(100))
                    ended = await asyncio.gather(*calls, return_exceptions=True)
                    assert all(isinstance(each, grpc.aio.AioRpcError) for each in ended)
            await no_text_in_headers(serving.grpc, request_of([[1]]).SerializeToString(), 100)
            async with aiohttp.ClientSession(serving.http) as session:
                for _ in range(100):
                    async with session.get("/", headers={"x-long": "x" * 20_000}) as reply:
                        assert reply.status == 400
            assert log.stat().st_size - before < 20_000
    finally:
        await triton.stop()
