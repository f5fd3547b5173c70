"""What Fairlane relies on in a channel to a backend, asked of grpcio's and of the native one."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from scheduler.wire.channel import Channel, Place
from tests.conftest import PATIENCE_S
from tests.wire.serving import SERVING, Handlers, code_of


def native_channel(address: str) -> Channel:
    host, _, port = address.rpartition(":")
    return Channel(Place(host, int(port)), metadata_bytes=1 << 20, user_agent="test")


def grpcio_channel(address: str) -> grpc.aio.Channel:
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.insecure_channel(address, options=options)


CHANNELS = {"grpcio": grpcio_channel, "native": native_channel}


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens. It is held, so nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@pytest.fixture(params=CHANNELS)
def new_channel(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    return CHANNELS[request.param]


@pytest.fixture
async def channel(new_channel: Callable[[str], Any], address: str) -> AsyncIterator[Any]:
    channel = new_channel(address)
    yield channel
    await channel.close()


async def eventually_answered(echo: Any) -> None:
    """Call until the server is found again: it may take a backoff."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                assert await echo(b"x") == b"x"
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 1 << 20])
async def test_a_message_comes_back(channel: Any, size: int) -> None:
    assert await channel.unary_unary("/s/Echo")(b"x" * size) == b"x" * size


async def test_many_calls_at_once_on_one_connection(channel: Any) -> None:
    echo = channel.unary_unary("/s/Echo")
    answers = await asyncio.gather(*(echo(b"%d" % number) for number in range(500)))
    assert answers == [b"%d" % number for number in range(500)]
    assert channel.get_state() is grpc.ChannelConnectivity.READY


async def test_messages_are_serialized_and_parsed(channel: Any) -> None:
    echo = channel.unary_unary("/s/Echo", lambda number: b"%d" % number, lambda raw: int(raw) + 1)
    assert await echo(41) == 42


async def test_an_answer_that_cannot_be_parsed_is_none(channel: Any) -> None:
    assert await channel.unary_unary("/s/Echo", None, int)(b"no number") is None


async def test_metadata_and_the_deadline_reach_the_server(channel: Any) -> None:
    metadata = (("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\0\1"))
    answer = await channel.unary_unary("/s/Told")(b"", metadata=metadata, timeout=30)
    assert answer == repr(("ipv4:127.0.0.1", True, list(metadata))).encode()
    assert await channel.unary_unary("/s/Told")(b"") == repr(("ipv4:127.0.0.1", False, [])).encode()


@pytest.mark.parametrize("words", ["plain", "", "100% of ümläute\n\t\0 and 日本 %41"])
async def test_a_status_with_words_and_trailers(channel: Any, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await channel.unary_unary("/s/Refuse")(words.encode())
    assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert ended.value.details() == words
    assert dict(tuple(ended.value.trailing_metadata())) == {"x-why": "because", "x-why-bin": b"\0\1\2"}  # type: ignore[arg-type]


async def test_an_unknown_method(channel: Any) -> None:
    assert (await code_of(channel.unary_unary("/s/Nothing")(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_that_passes_cancels_the_call(
    channel: Any, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    assert (await code_of(channel.unary_unary("/s/Wait")(b"", timeout=0.05)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: handlers.ended == ["cancelled"])


async def test_whoever_is_cancelled_while_he_waits_cancels_the_call(
    channel: Any, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    async def waits() -> Any:
        return await channel.unary_unary("/s/Wait")(b"")

    task = asyncio.create_task(waits())
    await eventually(lambda: handlers.begun == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: handlers.ended == ["cancelled"])
    assert await channel.unary_unary("/s/Echo")(b"next") == b"next"


async def test_a_channel_that_is_closed_cancels_its_calls(
    new_channel: Callable[[str], Any], address: str, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    channel = new_channel(address)

    async def waits() -> Any:
        return await channel.unary_unary("/s/Wait")(b"")

    tasks = [asyncio.create_task(waits()) for _ in range(20)]
    await eventually(lambda: handlers.begun == 20)
    await channel.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in outcomes)
    await eventually(lambda: handlers.ended == ["cancelled"] * 20)
    with pytest.raises(grpc.aio.UsageError):
        await channel.unary_unary("/s/Echo")(b"")


async def test_a_conversation(channel: Any) -> None:
    call = channel.stream_stream("/s/Converse")()
    for number in range(50):
        await call.write(b"%d" % number * 1000)
        assert await call.read() == b"%d" % number * 1000
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_a_conversation_that_is_aborted(channel: Any) -> None:
    call = channel.stream_stream("/s/Converse")(timeout=30)
    assert 0 < call.time_remaining() <= 30
    await call.write(b"one")
    assert await call.read() == b"one"
    await call.write(b"abort")
    assert await code_of(call.read()) == (grpc.StatusCode.ABORTED, "told to")


async def test_a_conversation_that_is_cancelled(channel: Any) -> None:
    call = channel.stream_stream("/s/Converse")()
    await call.write(b"one")
    assert await call.read() == b"one"
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_conversation_whose_deadline_passes(channel: Any) -> None:
    call = channel.stream_stream("/s/Converse")(timeout=0.1)
    await call.write(b"one")
    assert await call.read() == b"one"
    assert (await code_of(call.read()))[0] is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_who_does_not_read_is_not_written_to(
    channel: Any, handlers: Handlers, eventually: Callable[..., Any]
) -> None:
    call = channel.stream_stream("/s/Pour")()
    await call.write(b"")
    await call.read()
    assert await channel.unary_unary("/s/Echo")(b"other") == b"other"
    assert handlers.got < 500
    call.cancel()
    await eventually(lambda: handlers.ended == ["cancelled"])


async def test_who_does_not_take_is_not_sent_to(channel: Any, handlers: Handlers) -> None:
    call, sent = channel.stream_stream("/s/HearLate")(), 0

    async def send() -> None:
        nonlocal sent
        for _ in range(1000):
            await call.write(bytes(100_000))
            sent += 1
        await call.done_writing()

    sending = asyncio.create_task(send())
    assert await channel.unary_unary("/s/Echo")(b"other") == b"other"
    assert sent < 500
    handlers.release.set()
    assert await call.read() == b"1000"
    await sending


async def test_a_server_that_is_not_there(new_channel: Callable[[str], Any], closed_port: int) -> None:
    channel = new_channel(f"127.0.0.1:{closed_port}")
    code, words = await code_of(channel.unary_unary("/s/Echo")(b""))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert words.startswith("failed to connect to ")
    assert channel.get_state() is not grpc.ChannelConnectivity.READY
    await channel.close()


@pytest.mark.parametrize("serving", SERVING)
async def test_a_server_that_goes_and_comes_back(
    new_channel: Callable[[str], Any], serving: str, eventually: Callable[..., Any]
) -> None:
    port, channel = 0, None
    for _ in range(2):
        handlers = Handlers()
        async with SERVING[serving](handlers, port=port) as address:
            port = int(address.rpartition(":")[2])
            channel = channel or new_channel(address)
            await eventually_answered(channel.unary_unary("/s/Echo"))
            waiting = channel.unary_unary("/s/Wait")(b"")
            caught = asyncio.create_task(code_of(waiting))
            await eventually(lambda handlers=handlers: handlers.begun == 1)
        assert (await caught)[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    await channel.close()
