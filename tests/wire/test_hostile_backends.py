"""What a backend may do to the channel that leads to it, and what its calls are told."""

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from hpack import Encoder

from scheduler.wire import channel as channel_module
from scheduler.wire._h2 import ConnectionBroken
from scheduler.wire.channel import Channel, Place
from tests.wire.frames import MAGIC, frame
from tests.wire.serving import code_of

DATA, HEADERS, RST, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, END_HEADERS = 1, 4
OK = [(":status", "200"), ("content-type", "application/grpc")]
DONE = [("grpc-status", "0")]


def prefixed(message: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class Peer:
    """A server's side of one connection, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._encoder = Encoder()

    async def greet(self) -> None:
        assert await self._reader.readexactly(len(MAGIC)) == MAGIC
        self.send(frame(SETTINGS, 0, 0))

    async def request(self) -> int:
        """The stream of the next call that has said all."""
        while True:
            head = await self._reader.readexactly(9)
            await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] in (DATA, HEADERS) and head[4] & END_STREAM:
                return int.from_bytes(head[5:], "big")

    def headers(self, stream: int, fields: list[tuple[str, str]], *, end: bool = False) -> None:
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self._encoder.encode(fields)))

    def answer(self, stream: int, message: bytes = b"answer") -> None:
        self.headers(stream, OK)
        self.send(frame(DATA, 0, stream, prefixed(message)))
        self.headers(stream, DONE, end=True)

    def send(self, data: bytes) -> None:
        self.writer.write(data)


Script = Callable[[Peer], Any]


class Backend:
    """Plays a script on each connection that is made to it, the last one again and again."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await script(Peer(reader, writer))
            await reader.read()


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    made = Backend()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


@pytest.fixture
async def channel(backend: Backend) -> AsyncIterator[Channel]:
    channel = Channel(Place("127.0.0.1", backend.port), metadata_bytes=1 << 20, user_agent="test")
    yield channel
    await channel.close()


def ask(channel: Channel) -> Any:
    return channel.unary_unary("/s/M")(b"question")


def told(step: Callable[[Peer, int], None]) -> Script:
    """A backend that does this at each call."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            step(peer, await peer.request())

    return script


async def silent(_: Peer) -> None:
    """A backend that takes the connection, and says nothing."""


def trailers_only(*fields: tuple[str, str]) -> Script:
    return told(lambda peer, stream: peer.headers(stream, list(fields), end=True))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ([*OK, ("grpc-status", "7"), ("grpc-message", "a%20b")], grpc.StatusCode.PERMISSION_DENIED),
        ([*OK, ("grpc-status", "99")], grpc.StatusCode.UNKNOWN),
        ([*OK, ("grpc-status", "no")], grpc.StatusCode.UNKNOWN),
        (OK, grpc.StatusCode.UNKNOWN),
        ([(":status", "503")], grpc.StatusCode.UNAVAILABLE),
        ([(":status", "404")], grpc.StatusCode.UNIMPLEMENTED),
        ([(":status", "418")], grpc.StatusCode.UNKNOWN),
        ([*OK, ("grpc-status", "0")], grpc.StatusCode.INTERNAL),
    ],
)
async def test_an_answer_of_header_fields_alone(
    backend: Backend, channel: Channel, fields: list[tuple[str, str]], code: grpc.StatusCode
) -> None:
    backend.scripts = [trailers_only(*fields)]
    assert (await code_of(ask(channel)))[0] is code
    assert backend.connections == 1


async def test_a_page_of_a_proxy_is_no_answer(backend: Backend, channel: Channel) -> None:
    def page(peer: Peer, stream: int) -> None:
        peer.headers(stream, [(":status", "502"), ("content-type", "text/html")])
        peer.send(frame(DATA, END_STREAM, stream, b"<html>"))

    backend.scripts = [told(page)]
    assert await code_of(ask(channel)) == (grpc.StatusCode.UNAVAILABLE, "expected HTTP status 200, got 502")


async def test_what_is_told_before_the_answer_is_left_out(backend: Backend, channel: Channel) -> None:
    def early(peer: Peer, stream: int) -> None:
        peer.headers(stream, [(":status", "103"), ("link", "x")])
        peer.answer(stream)

    backend.scripts = [told(early)]
    assert await ask(channel) == b"answer"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (7, grpc.StatusCode.UNAVAILABLE),
        (8, grpc.StatusCode.CANCELLED),
        (11, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (2, grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_call_that_is_reset(backend: Backend, channel: Channel, error: int, code: grpc.StatusCode) -> None:
    backend.scripts = [told(lambda peer, stream: peer.send(frame(RST, 0, stream, error.to_bytes(4, "big"))))]
    assert (await code_of(ask(channel)))[0] is code
    assert backend.connections == 1


@pytest.mark.parametrize("messages", [[], [b"one", b"two"]], ids=["no response", "two responses"])
async def test_one_response_is_expected(backend: Backend, channel: Channel, messages: list[bytes]) -> None:
    def answer(peer: Peer, stream: int) -> None:
        peer.headers(stream, OK)
        for message in messages:
            peer.send(frame(DATA, 0, stream, prefixed(message)))
        peer.headers(stream, DONE, end=True)

    backend.scripts = [told(answer)]
    code, words = await code_of(ask(channel))
    assert (code, words.split(",")[0]) == (grpc.StatusCode.INTERNAL, "expected one response")


async def test_compressed_answers_are_read(backend: Backend, channel: Channel) -> None:
    def answer(peer: Peer, stream: int) -> None:
        peer.headers(stream, [*OK, ("grpc-encoding", "gzip")])
        peer.send(frame(DATA, 0, stream, prefixed(gzip.compress(b"answer" * 100), compressed=True)))
        peer.headers(stream, DONE, end=True)

    backend.scripts = [told(answer)]
    assert await ask(channel) == b"answer" * 100


@pytest.mark.parametrize("coding", ["gzip", "identity", "br"])
async def test_what_cannot_be_decompressed_fails_its_call_alone(
    backend: Backend, channel: Channel, coding: str
) -> None:
    def answer(peer: Peer, stream: int) -> None:
        if stream > 1:
            peer.answer(stream)
            return
        peer.headers(stream, [*OK, ("grpc-encoding", coding)])
        peer.send(frame(DATA, 0, stream, prefixed(b"no gzip", compressed=True)))

    backend.scripts = [told(answer)]
    assert (await code_of(ask(channel)))[0] is grpc.StatusCode.INTERNAL
    assert await ask(channel) == b"answer"
    assert backend.connections == 1


async def test_calls_go_on_after_goaway_and_the_next_goes_to_a_new_connection(
    backend: Backend, channel: Channel, eventually: Callable[..., Any]
) -> None:
    asked, told_to_go = asyncio.Event(), asyncio.Event()

    async def leaves(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(frame(GOAWAY, 0, 0, stream.to_bytes(4, "big") + bytes(4)))
        asked.set()
        await told_to_go.wait()
        peer.answer(stream, b"old")

    backend.scripts = [leaves, told(lambda peer, stream: peer.answer(stream, b"new"))]
    old = asyncio.ensure_future(ask(channel))
    await asked.wait()
    await eventually(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY)
    assert await ask(channel) == b"new"
    assert not old.done()
    told_to_go.set()
    assert await old == b"old"
    assert backend.connections == 2


async def test_a_call_that_goaway_leaves_out_has_not_been_answered(backend: Backend, channel: Channel) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        peer.send(frame(GOAWAY, 0, 0, bytes(8)))

    backend.scripts = [refuses]
    assert (await code_of(ask(channel)))[0] is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(1000), b"\xff" * 1000])
async def test_a_server_of_another_kind_is_not_reached(backend: Backend, channel: Channel, garbage: bytes) -> None:
    async def babbles(peer: Peer) -> None:
        peer.send(garbage)

    backend.scripts = [babbles]
    code, words = await code_of(ask(channel))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert words.startswith("failed to connect to 127.0.0.1:")


async def test_a_server_that_never_speaks_is_not_reached(
    backend: Backend, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "CONNECT_S", 0.05)

    backend.scripts = [silent]
    code, words = await code_of(ask(channel))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert words.endswith(": no answer within 0.05 s")


async def test_a_connection_that_breaks_within_an_answer_loses_its_calls(backend: Backend, channel: Channel) -> None:
    def cut(peer: Peer, stream: int) -> None:
        peer.headers(stream, OK)
        peer.send(frame(DATA, 0, stream, prefixed(b"answer")[:7]))
        peer.writer.close()

    backend.scripts = [told(cut)]
    assert await code_of(ask(channel)) == (grpc.StatusCode.UNAVAILABLE, "the connection to the server was lost")


async def test_header_fields_cut_off_by_the_network_are_a_lost_connection(backend: Backend, channel: Channel) -> None:
    def cut(peer: Peer, stream: int) -> None:
        peer.send(frame(HEADERS, 0, stream, Encoder().encode(OK)))
        peer.writer.close()

    backend.scripts = [told(cut)]
    assert await code_of(ask(channel)) == (grpc.StatusCode.UNAVAILABLE, "the connection to the server was lost")


async def test_a_header_field_that_nghttp2_cannot_read_fails_the_call_that_has_it(
    backend: Backend, channel: Channel
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.request()
        stream = await peer.request()
        block = Encoder().encode([*OK, ("grpc-status", "13"), ("grpc-message", "x" * 100_000)])
        parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            flags = (END_HEADERS if last else 0) | (END_STREAM if number == 0 else 0)
            peer.send(frame(9 if number else HEADERS, flags, stream, part))

    backend.scripts = [script]
    innocent, guilty = (asyncio.ensure_future(ask(channel)) for _ in range(2))
    assert (await code_of(guilty))[0] is grpc.StatusCode.INTERNAL
    assert (await code_of(innocent))[0] is grpc.StatusCode.UNAVAILABLE


async def test_metadata_beyond_the_bound_fail_the_call_alone(backend: Backend) -> None:
    def answer(peer: Peer, stream: int) -> None:
        peer.headers(stream, [*OK, *([("x-long", "v" * 1000)] if stream == 1 else [])])
        peer.send(frame(DATA, 0, stream, prefixed(b"answer")))
        peer.headers(stream, DONE, end=True)

    backend.scripts = [told(answer)]
    channel = Channel(Place("127.0.0.1", backend.port), metadata_bytes=500, user_agent="test")
    assert (await code_of(ask(channel)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await ask(channel) == b"answer"
    await channel.close()


async def test_a_connection_without_streams_left_is_followed_by_another(
    backend: Backend, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.scripts = [told(lambda peer, stream: peer.answer(stream))]
    assert await ask(channel) == b"answer"

    def used_up(*_: Any) -> int:
        raise ConnectionBroken("no stream is left")

    monkeypatch.setattr(channel._connection, "begin", used_up)
    assert await ask(channel) == b"answer"
    assert backend.connections == 2


async def test_the_next_try_waits_for_a_moment_and_calls_fail_meanwhile(
    backend: Backend, channel: Channel, eventually: Callable[..., Any]
) -> None:
    async def babbles(peer: Peer) -> None:
        peer.send(bytes(100))

    backend.scripts = [babbles, told(lambda peer, stream: peer.answer(stream))]
    first, second = await code_of(ask(channel)), await code_of(ask(channel))
    assert first == second
    assert channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
    assert backend.connections == 1
    await eventually(lambda: channel.get_state() is grpc.ChannelConnectivity.IDLE)
    assert await ask(channel) == b"answer"


async def test_a_channel_that_is_closed_while_it_connects_cancels_those_who_wait(backend: Backend) -> None:
    backend.scripts = [silent]
    channel = Channel(Place("127.0.0.1", backend.port), metadata_bytes=1000, user_agent="test")
    waiting = asyncio.ensure_future(ask(channel))
    await asyncio.sleep(0)
    await channel.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
