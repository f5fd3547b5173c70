"""One HTTP/2 connection that makes unary gRPC calls of one method, as cheaply as Python can.

The load generator shares the machine with what it measures, and a flood of calls through grpc.aio takes as much of it
as the scheduler that is under test. All calls of a stream have the same headers, so they are encoded once, and an
answer is told by its last frame. The frames are those of RFC 9113, the messages those of gRPC over HTTP/2; header
blocks are decoded by `hpack`, without a dynamic table (size 0), so that each block stands for itself.

Bounds: a request has to fit into the window that the server opens for a stream (64 KiB and more); calls beyond the
server's limit of concurrent streams wait here, as in any gRPC client.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

import grpc
import hpack

from bench.http2.frame import (
    ACK,
    CANCEL,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW,
    MAX_STREAMS,
    PADDED_OR_PRIORITY,
    PING,
    PREFACE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data_frames,
    frame,
)

# What the server may send before it is told that we have read: nothing here is slow to read.
OUR_WINDOW: Final = 1 << 30
# A stream number is 31 bits; long before, a run is over.
LAST_STREAM: Final = (1 << 31) - 1
CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class CallStatus:
    """How a call ended: its status, the message with it, and its trailers."""

    code: grpc.StatusCode
    details: str
    trailers: dict[str, str]


EndCallback = Callable[[CallStatus], None]


class _Call(NamedTuple):
    framed: bytes
    ended: EndCallback
    timer: asyncio.TimerHandle | None
    timeout_s: float | None


class Http2Connection(asyncio.Protocol):
    """A connection. Make it with `connect`."""

    def __init__(self, headers: Iterable[tuple[str, str]], timeout_s: float | None) -> None:
        self._encoder = hpack.Encoder()
        self._encoder.header_table_size = 0
        self._headers: bytes = self._encoder.encode(list(headers))
        self._decoder = hpack.Decoder()
        # The server says so too, in the first block it sends, which is not looked at.
        self._decoder.max_allowed_table_size = self._decoder.header_table_size = 0
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._settled: asyncio.Future[None] = self._loop.create_future()
        self._agreed = 0
        self._buffer = b""
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._waiting: deque[tuple[bytes, EndCallback, float | None]] = deque()
        self._most_streams = LAST_STREAM
        self._stream_window = DEFAULT_WINDOW
        self._window = DEFAULT_WINDOW
        self._unread = 0
        self._why_gone = ""
        # The block of the usual end, and what it says: it is the same every time.
        self._usual: tuple[bytes, CallStatus] = (b"", CallStatus(grpc.StatusCode.OK, "", {}))

    @classmethod
    async def connect(
        cls, target: str, path: str, metadata: Iterable[tuple[str, str]], *, timeout_s: float | None = None
    ) -> "Http2Connection":
        """Connect, and wait until both sides have agreed on their settings.

        Args:
            target: HOST:PORT.
            path: of the method, `/package.Service/Method`.
            metadata: of every call; lower-case keys.
            timeout_s: deadline of every call that has none of its own, told to the server and kept here too.

        Raises:
            OSError: nobody listens there, or it speaks no HTTP/2.
        """
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", target)]
        headers += [("content-type", "application/grpc"), ("te", "trailers"), *metadata]
        host, _, port = target.rpartition(":")
        _, wire = await asyncio.get_running_loop().create_connection(lambda: cls(headers, timeout_s), host, int(port))
        await wire._settled
        return wire

    @property
    def outstanding(self) -> int:
        """Calls that have not ended."""
        return len(self._calls) + len(self._waiting)

    def call(self, message: bytes, ended: Iterable[EndCallback], *, timeout_s: float | None = None) -> None:
        """Send the request once for each of `ended`, in one write as far as the server takes them.

        Each is called once, when its request is answered, refused, too late, or lost. None: the connection's deadline.

        Raises:
            ValueError: the message is larger than the window that the server opens for a stream.
        """
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        if len(framed) > self._stream_window:
            raise ValueError(f"a request of {len(framed)} bytes; the server takes {self._stream_window} at once")
        if self._why_gone:
            for each in ended:
                each(self._lost())
            return
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        self._waiting.extend((framed, each, timeout_s) for each in ended)
        self._send_waiting()

    def close(self) -> None:
        """End the connection; what has no answer stays without one."""
        self._calls.clear()
        self._waiting.clear()
        self._transport.close()

    # ---- sending

    def _send_waiting(self) -> None:
        frames: list[bytes] = []
        while self._waiting and len(self._calls) < self._most_streams and len(self._waiting[0][0]) <= self._window:
            framed, ended, timeout_s = self._waiting.popleft()
            stream = self._next_stream
            self._next_stream += 2
            self._window -= len(framed)
            headers, timer = self._headers, None
            if timeout_s is not None:
                headers += self._encoder.encode([("grpc-timeout", f"{max(1, round(timeout_s * 1e3))}m")])
                timer = self._loop.call_later(timeout_s, self._expire, stream)
            self._calls[stream] = _Call(framed, ended, timer, timeout_s)
            frames += frame(HEADERS, END_HEADERS, stream, headers), data_frames(stream, framed)
        if frames:
            self._transport.write(b"".join(frames))

    def _expire(self, stream: int) -> None:
        self._transport.write(frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big")))
        self._end(stream, CallStatus(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", {}))

    # ---- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: our settings, and a window that never closes."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = struct.pack(">HIHI", HEADER_TABLE_SIZE, 0, INITIAL_WINDOW, OUR_WINDOW)
        window = frame(WINDOW_UPDATE, 0, 0, OUR_WINDOW.to_bytes(4, "big"))
        transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + window)

    def connection_lost(self, exc: Exception | None) -> None:
        """Every call that has no answer is lost."""
        self._why_gone = str(exc or "the server closed the connection")
        if not self._settled.done():
            self._settled.set_exception(ConnectionError(self._why_gone))
        for stream in list(self._calls):
            self._end(stream, self._lost())
        while self._waiting:
            self._waiting.popleft()[1](self._lost())

    def data_received(self, data: bytes) -> None:
        """Take in whole frames, keep the rest."""
        buffer = self._buffer + data if self._buffer else data
        at, end = 0, len(buffer)
        while end - at >= FRAME_HEADER.size:
            high, low, kind, flags, stream = FRAME_HEADER.unpack_from(buffer, at)
            after = at + FRAME_HEADER.size + (high << 16 | low)
            if after > end:
                break
            self._frame(kind, flags, stream, buffer[at + FRAME_HEADER.size : after])
            at = after
        self._buffer = buffer[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & PADDED_OR_PRIORITY or not flags & END_HEADERS:
                raise NotImplementedError("a header block in several frames, or padded")
            if flags & END_STREAM:
                self._end(stream, self._told(payload))
        elif kind == DATA:
            self._read(len(payload))
            if flags & END_STREAM:  # no gRPC server ends a call without a status
                self._end(stream, CallStatus(grpc.StatusCode.INTERNAL, "the answer has no status", {}))
        elif kind == RST_STREAM and int.from_bytes(payload, "big") == REFUSED_STREAM:
            self._again(stream)
        elif kind == RST_STREAM:
            details = f"stream reset by the server with error {int.from_bytes(payload, 'big')}"
            self._end(stream, CallStatus(grpc.StatusCode.UNAVAILABLE, details, {}))
        elif kind == SETTINGS:
            self._settings(flags, payload)
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
            self._send_waiting()
        elif kind == GOAWAY:
            self._why_gone = "the server is going away"

    def _again(self, stream: int) -> None:
        """Send a request once more that the server did not look at: it counts a stream that has just ended as open."""
        call = self._calls.pop(stream, None)
        if call is None:
            return
        if call.timer is not None:
            call.timer.cancel()
        self._waiting.appendleft((call.framed, call.ended, call.timeout_s))
        self._send_waiting()

    def _settings(self, flags: int, payload: bytes) -> None:
        self._agreed += 1
        if not flags & ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == MAX_STREAMS:
                    self._most_streams = value
                elif key == INITIAL_WINDOW:
                    self._stream_window = value
            self._transport.write(frame(SETTINGS, ACK, 0))
            self._send_waiting()
        # Theirs, and their word that they have ours.
        if self._agreed >= 2 and not self._settled.done():
            self._settled.set_result(None)

    def _read(self, count: int) -> None:
        """Open the connection's window again, seldom."""
        self._unread += count
        if self._unread >= OUR_WINDOW // 2:
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, self._unread.to_bytes(4, "big")))
            self._unread = 0

    def _told(self, block: bytes) -> CallStatus:
        if block == self._usual[0]:
            return self._usual[1]
        trailers = {_text(key): _text(value) for key, value in self._decoder.decode(block, raw=True)}
        code = CODES.get(int(trailers.get("grpc-status", "2")), grpc.StatusCode.UNKNOWN)
        end = CallStatus(code, trailers.get("grpc-message", ""), trailers)
        if code is grpc.StatusCode.OK:
            self._usual = (block, end)
        return end

    def _end(self, stream: int, end: CallStatus) -> None:
        call = self._calls.pop(stream, None)
        if call is None:  # ended here before, by its deadline
            return
        if call.timer is not None:
            call.timer.cancel()
        call.ended(end)
        if self._waiting:
            self._send_waiting()

    def _lost(self) -> CallStatus:
        return CallStatus(grpc.StatusCode.UNAVAILABLE, self._why_gone, {})


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("latin-1")
