"""One call at the client: what it sends, what came, and how it ended.

Names and meanings are those of `grpc.aio`'s calls, as far as Fairlane uses them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

import grpc

from scheduler.wire import _h2
from scheduler.wire.coding import IDENTITY, CodingError, TooLarge, decompressed
from scheduler.wire.fields import Field, RawField, metadata_of, percent_decoded, timeout_of
from scheduler.wire.sizes import UNSENT_BYTES

CODES: Final = {str(code.value[0]): code for code in grpc.StatusCode}
# HTTP/2's error codes, by gRPC over HTTP2, "Errors".
CANCEL: Final = 8
CODES_OF_RESETS: Final = {
    7: grpc.StatusCode.UNAVAILABLE,
    CANCEL: grpc.StatusCode.CANCELLED,
    11: grpc.StatusCode.RESOURCE_EXHAUSTED,
    12: grpc.StatusCode.PERMISSION_DENIED,
}
# What an answer without a gRPC status says: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
CODES_OF_HTTP: Final = {
    "400": grpc.StatusCode.INTERNAL,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "403": grpc.StatusCode.PERMISSION_DENIED,
    "404": grpc.StatusCode.UNIMPLEMENTED,
    "429": grpc.StatusCode.UNAVAILABLE,
    "502": grpc.StatusCode.UNAVAILABLE,
    "503": grpc.StatusCode.UNAVAILABLE,
    "504": grpc.StatusCode.UNAVAILABLE,
}


class Line(Protocol):
    """What a call needs of its connection."""

    connection: _h2.Connection
    message_bytes: int

    def begin(self, call: "ClientCall", fields: list[RawField]) -> int:
        """Send the request's header fields, and return the stream."""

    def soon(self) -> None:
        """Send at the end of this turn of the loop."""

    def taken(self, stream_id: int) -> None:
        """A message was taken."""


class ClientCall:
    """A call that has been made; it begins when there is a connection.

    Args:
        fields: the request's header fields, but for its timeout.
        parse: makes a response of its bytes; None: it is bytes.
        timeout_s: seconds that it has in all; None: as long as it takes.
    """

    __slots__ = (
        "_coding",
        "_deadline",
        "_error",
        "_fields",
        "_line",
        "_loop",
        "_parse",
        "_stream_id",
        "_timer",
        "over",
    )

    def __init__(self, fields: list[RawField], parse: Callable[[bytes], Any] | None, timeout_s: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._fields = fields
        self._parse = parse
        self._line: Line | None = None
        self._stream_id = 0
        self._coding: str | None = None
        self.over = False
        # How it ended: None after OK, and after it was cancelled here.
        self._error: grpc.aio.AioRpcError | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            self._deadline = self._loop.time() + timeout_s
            self._timer = self._loop.call_at(self._deadline, self._expired)

    def time_remaining(self) -> float | None:
        """Seconds to its deadline; None: it has none."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def cancel(self) -> bool:
        """End it; whether it had not ended before."""
        if self.over:
            return False
        self._reset()
        self._end(None, cancelled=True)
        return True

    # For the connection.

    def begin(self, line: Line) -> None:
        """There is a connection."""
        fields = self._fields
        if self._deadline is not None:
            fields = [*fields, (b"grpc-timeout", timeout_of(self._deadline - self._loop.time()))]
        self._stream_id = line.begin(self, fields)
        self._line = line

    def headers(self, fields: list[Field] | None, *, ended: bool) -> None:
        """Header fields or trailers."""
        if self.over:
            return
        if fields is None:
            self._refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "received metadata size exceeds hard limit")
            return
        about = dict(fields)
        if self._coding is None:
            status = about.get(":status", "")
            if not ended and status.startswith("1"):
                return
            self._coding = about.get("grpc-encoding", IDENTITY)
            if "grpc-status" not in about and status != "200":
                code = CODES_OF_HTTP.get(status, grpc.StatusCode.UNKNOWN)
                self._refuse(code, f"expected HTTP status 200, got {status:.20}")
                return
        if ended:
            self._status(about, fields)

    def message(self, payload: bytes, compressed: bool) -> None:
        """A message."""
        if self.over or self._line is None:
            return
        if compressed:
            try:
                payload = decompressed(payload, self._coding or IDENTITY, self._line.message_bytes)
            except CodingError as error:
                self._refuse(grpc.StatusCode.INTERNAL, str(error))
                return
            except TooLarge:
                self.too_long(None)
                return
        self._take(payload)

    def too_long(self, size: int | None) -> None:
        """A message that is longer than it may be; of a compressed one the size is not known."""
        if not self.over and self._line is not None:
            told = "more" if size is None else str(size)
            words = f"Received message larger than max ({told} vs. {self._line.message_bytes})"
            self._refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, words)

    def drained(self) -> None:
        """What was written has left."""

    def closed(self, code: int) -> None:
        """The stream is closed, with HTTP/2's error code."""
        if not self.over:
            self.fail(
                CODES_OF_RESETS.get(code, grpc.StatusCode.INTERNAL),
                f"the server reset the call with HTTP/2 error {code}",
            )

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """It ends with this status, which the server did not say."""
        nothing = grpc.aio.Metadata()
        self._end(grpc.aio.AioRpcError(code, nothing, nothing, details))

    # For the two kinds of calls.

    def _take(self, payload: bytes) -> None:
        raise NotImplementedError

    def _finish(self, *, cancelled: bool) -> None:
        """It has ended."""
        raise NotImplementedError

    def _parsed(self, payload: bytes) -> Any:
        """The message; None where it is none, as with `grpc.aio`."""
        if self._parse is None:
            return payload
        try:
            return self._parse(payload)
        except Exception:
            return None

    def _refuse(self, code: grpc.StatusCode, details: str) -> None:
        self._reset()
        self.fail(code, details)

    def _status(self, about: dict[str, str], fields: list[Field]) -> None:
        told = about.get("grpc-status")
        if told == "0":
            self._end(None)
            return
        code = grpc.StatusCode.UNKNOWN if told is None else CODES.get(told, grpc.StatusCode.UNKNOWN)
        details = percent_decoded(about.get("grpc-message", "" if told else "the answer has no grpc-status"))
        trailers = grpc.aio.Metadata(*metadata_of(fields))
        self._end(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details))

    def _expired(self) -> None:
        self._timer = None
        if not self.over:
            self._refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _reset(self) -> None:
        if self._line is not None:
            self._line.connection.reset(self._stream_id, CANCEL)
            self._line.soon()

    def _end(self, error: grpc.aio.AioRpcError | None, *, cancelled: bool = False) -> None:
        if self.over:
            return
        self.over = True
        self._error = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._finish(cancelled=cancelled)


class UnaryCall(ClientCall):
    """One request, one response: `await call` returns it.

    Raises:
        grpc.aio.AioRpcError: it failed.
        asyncio.CancelledError: it was cancelled, or its channel was closed.
    """

    __slots__ = ("_answer", "_payload", "_request")

    def __init__(
        self,
        fields: list[RawField],
        request: bytes,
        parse: Callable[[bytes], Any] | None,
        timeout_s: float | None,
    ) -> None:
        super().__init__(fields, parse, timeout_s)
        self._request = request
        self._payload: bytes | None = None
        self._answer: asyncio.Future[Any] = self._loop.create_future()

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self._answer.__await__())
        except asyncio.CancelledError:
            self.cancel()
            raise

    def begin(self, line: Line) -> None:
        """Send all of it."""
        super().begin(line)
        request, self._request = self._request, b""
        line.connection.write(self._stream_id, request, False)
        line.connection.end(self._stream_id, None)
        line.soon()

    def _take(self, payload: bytes) -> None:
        if self._payload is not None:
            self._refuse(grpc.StatusCode.INTERNAL, "expected one response, got several")
            return
        self._payload = payload

    def _finish(self, *, cancelled: bool) -> None:
        if self._answer.done():
            return  # whoever waited was cancelled
        if cancelled:
            self._answer.cancel()
        elif self._error is not None:
            self._answer.set_exception(self._error)
        elif self._payload is None:
            nothing = grpc.aio.Metadata()
            self._answer.set_exception(
                grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "expected one response, got none")
            )
        else:
            self._answer.set_result(self._parsed(self._payload))


class StreamCall(ClientCall):
    """Requests and responses as they come.

    Args:
        fields: as of any call.
        serialize: makes bytes of a request; None: it is bytes.
        parse: as of any call.
        timeout_s: as of any call.
    """

    __slots__ = ("_begun", "_came", "_cancelled", "_inbox", "_room", "_serialize")

    def __init__(
        self,
        fields: list[RawField],
        serialize: Callable[[Any], bytes] | None,
        parse: Callable[[bytes], Any] | None,
        timeout_s: float | None,
    ) -> None:
        super().__init__(fields, parse, timeout_s)
        self._serialize = serialize
        self._inbox: deque[bytes] = deque()
        self._cancelled = False
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._came: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def write(self, request: Any) -> None:
        """Send one request; returns when there is room for the next.

        Raises:
            grpc.aio.AioRpcError: the call has failed.
            asyncio.CancelledError: it was cancelled, or its channel was closed.
        """
        await self._begun
        line = self._usable_line()
        payload = request if self._serialize is None else self._serialize(request)
        unsent = line.connection.write(self._stream_id, payload, False)
        line.soon()
        if unsent > UNSENT_BYTES:
            self._room = self._loop.create_future()
            await self._room
            self._usable_line()

    async def done_writing(self) -> None:
        """Say that all requests are sent; nothing where the call has ended."""
        await self._begun
        if not self.over and self._line is not None:
            self._line.connection.end(self._stream_id, None)
            self._line.soon()

    async def read(self) -> Any:
        """The next response; `grpc.aio.EOF` after the last.

        Raises:
            grpc.aio.AioRpcError: the call has failed.
            asyncio.CancelledError: it was cancelled, or its channel was closed.
        """
        while not self._inbox:
            if self.over:
                self._raise()
                return grpc.aio.EOF
            self._came = self._loop.create_future()
            await self._came
        payload = self._inbox.popleft()
        if self._line is not None and not self.over:
            self._line.taken(self._stream_id)
        return self._parsed(payload)

    def begin(self, line: Line) -> None:
        """The requests follow."""
        super().begin(line)
        line.soon()
        _set(self._begun)

    def drained(self) -> None:
        """There is room for the next request."""
        _set(self._room)

    def _take(self, payload: bytes) -> None:
        self._inbox.append(payload)
        _set(self._came)

    def _finish(self, *, cancelled: bool) -> None:
        self._cancelled = cancelled
        if self._line is not None and not cancelled and self._error is None:
            # The server has said all: it does not care for what is still to be sent.
            self._reset()
        for waiting in (self._begun, self._came, self._room):
            _set(waiting)

    def _usable_line(self) -> Line:
        self._raise()
        if self._line is None or self.over:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the server has ended the call")
        return self._line

    def _raise(self) -> None:
        """How it ended, where it did not end well."""
        if self._cancelled:
            raise asyncio.CancelledError
        if self._error is not None:
            raise self._error


def _set(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
