"""What a stock client relies on in the server, asked of both wires."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from tests.wire.serving import Handlers, code_of


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 1 << 20])
@pytest.mark.parametrize("compression", list(grpc.Compression))
async def test_a_message_comes_back(channel: grpc.aio.Channel, size: int, compression: grpc.Compression) -> None:
    call = channel.unary_unary("/s/Echo")(b"x" * size, compression=compression)
    assert await call == b"x" * size
    trailers = dict(tuple(await call.trailing_metadata()))  # type: ignore[arg-type]
    assert trailers["x-size"] == str(size)
    assert trailers["x-raw-bin"] == b"\0\xff" + b"x" * min(size, 4)
    assert await call.code() is grpc.StatusCode.OK


async def test_many_calls_at_once(channel: grpc.aio.Channel) -> None:
    echo = channel.unary_unary("/s/Echo")
    answers = await asyncio.gather(*(echo(b"%d" % number) for number in range(500)))
    assert answers == [b"%d" % number for number in range(500)]


async def test_the_context_tells_of_the_call(channel: grpc.aio.Channel) -> None:
    metadata = (("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\0\1"), ("x-c", "with spaces ~"))
    answer = await channel.unary_unary("/s/Told")(b"", metadata=metadata, timeout=30)
    assert answer == repr(("ipv4:127.0.0.1", True, list(metadata))).encode()
    assert await channel.unary_unary("/s/Told")(b"") == repr(("ipv4:127.0.0.1", False, [])).encode()


@pytest.mark.parametrize("words", ["plain", "", "100% of ümläute\n\t\0 and 日本 %41"])
async def test_a_status_with_words_and_trailers(channel: grpc.aio.Channel, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await channel.unary_unary("/s/Refuse")(words.encode())
    assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert ended.value.details() == words
    assert dict(tuple(ended.value.trailing_metadata())) == {"x-why": "because", "x-why-bin": b"\0\1\2"}  # type: ignore[arg-type]


async def test_a_handler_that_fails_is_told_as_unknown(channel: grpc.aio.Channel) -> None:
    code, words = await code_of(channel.unary_unary("/s/Fail")(b""))
    assert code is grpc.StatusCode.UNKNOWN
    assert "a fault of the handler" in words


async def test_a_request_that_cannot_be_parsed(channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    code = (await code_of(channel.unary_unary("/s/Number")(b"no number")))[0]
    assert code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
    assert await channel.unary_unary("/s/Number")(b"4") == b"5"
    assert "a handler failed" not in caplog.text


async def test_an_unknown_method(channel: grpc.aio.Channel) -> None:
    assert (await code_of(channel.unary_unary("/s/Nothing")(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_longer_than_the_bound(channel: grpc.aio.Channel) -> None:
    code, words = await code_of(channel.unary_unary("/s/Echo")(b"x" * ((1 << 20) + 1)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in words
    assert await channel.unary_unary("/s/Echo")(b"next") == b"next"


async def test_a_message_that_grows_beyond_the_bound(channel: grpc.aio.Channel) -> None:
    bomb = channel.unary_unary("/s/Echo")(bytes(1 << 24), compression=grpc.Compression.Gzip)
    assert (await code_of(bomb))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_beyond_the_bound(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/s/Echo")(b"", metadata=(("x-long", "v" * 20000),))
    assert (await code_of(call))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await channel.unary_unary("/s/Echo")(b"next") == b"next"


async def test_a_deadline_that_passes_cancels_the_handler(
    channel: grpc.aio.Channel, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    assert (await code_of(channel.unary_unary("/s/Wait")(b"", timeout=0.05)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: handlers.ended == ["cancelled"])


async def test_a_call_that_is_cancelled_cancels_the_handler(
    channel: grpc.aio.Channel, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    call = channel.unary_unary("/s/Wait")(b"")
    await eventually(lambda: handlers.begun == 1)
    call.cancel()
    await eventually(lambda: handlers.ended == ["cancelled"])


async def test_a_connection_that_is_cut_cancels_its_calls(
    address: str, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        calls = [channel.unary_unary("/s/Wait")(b"") for _ in range(50)]
        await eventually(lambda: handlers.begun == 50)
    await eventually(lambda: handlers.ended == ["cancelled"] * 50)
    assert all(call.done() for call in calls)


async def test_thousands_of_deadlines_leave_other_calls_alone(
    channel: grpc.aio.Channel, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    innocent = channel.unary_unary("/s/Wait")(b"innocent")
    wait = channel.unary_unary("/s/Wait")
    for _ in range(30):
        codes = [code for code, _ in await asyncio.gather(*(code_of(wait(b"", timeout=0.001)) for _ in range(100)))]
        assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert not innocent.done()
    handlers.release.set()
    assert await innocent == b"innocent"


async def test_one_request_many_responses(channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream("/s/Count")(b"1000")
    assert [int(each) async for each in call] == list(range(1000))
    assert await call.code() is grpc.StatusCode.OK
    assert [each async for each in channel.unary_stream("/s/Count")(b"0")] == []


async def test_many_requests_one_response(channel: grpc.aio.Channel) -> None:
    parts = [b"%d," % number for number in range(1000)]
    assert await channel.stream_unary("/s/Join")(iter(parts)) == b"".join(parts)
    assert await channel.stream_unary("/s/Join")(iter(())) == b""


async def test_a_conversation(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/s/Converse")()
    for number in range(50):
        await call.write(b"%d" % number * 1000)
        assert await call.read() == b"%d" % number * 1000
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_conversation_that_is_aborted(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream("/s/Converse")()
    await call.write(b"one")
    assert await call.read() == b"one"
    await call.write(b"abort")
    assert await code_of(call.read()) == (grpc.StatusCode.ABORTED, "told to")


async def test_who_does_not_read_is_not_written_to(
    channel: grpc.aio.Channel, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    call = channel.unary_stream("/s/Flood")(b"")
    await call.read()
    assert await channel.unary_unary("/s/Echo")(b"other") == b"other"
    assert handlers.got < 500
    call.cancel()
    await eventually(lambda: handlers.ended == ["cancelled"])


async def test_who_does_not_take_is_not_sent_to(
    channel: grpc.aio.Channel, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    sent = 0

    async def messages() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield bytes(100_000)

    call = channel.stream_unary("/s/Deaf")(messages())
    await eventually(lambda: handlers.begun == 1)
    assert await channel.unary_unary("/s/Echo")(b"other") == b"other"
    assert sent < 500
    handlers.release.set()
    assert await call == b"1000"
