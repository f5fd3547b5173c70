"""One call at the server: what its handler sees of it, and how it ends."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import grpc

from scheduler.wire.coding import ACCEPTED, CodingError, TooLarge, decompressed
from scheduler.wire.fields import Metadata, RawField, fields_of, percent_encoded
from scheduler.wire.outlet import Outlet
from scheduler.wire.sizes import UNSENT_BYTES

RESPONSE: Final[list[RawField]] = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", ACCEPTED),
]
STATUSES: Final[dict[grpc.StatusCode, RawField]] = {
    code: (b"grpc-status", b"%d" % code.value[0]) for code in grpc.StatusCode
}


def as_it_is(message: Any) -> Any:
    """For methods without a parser or serializer: messages are bytes."""
    return message


class Unparsable(Exception):
    """What came is none of the method's messages."""


def parsed(parse: Callable[[bytes], Any], payload: bytes) -> Any:
    """The message.

    Raises:
        Unparsable: it is none.
    """
    try:
        return parse(payload)
    except Exception as error:
        raise Unparsable(f"the request cannot be parsed: {error}") from error


class ServerCall:
    """A call; handlers know it as their context.

    Attributes:
        task: what answers it; None: not begun, or ended.
        ended: whether its status is set: nothing more can be sent.
    """

    __slots__ = (
        "_coding",
        "_deadline",
        "_headers_sent",
        "_inbox",
        "_inbox_closed",
        "_metadata",
        "_outlet",
        "_room",
        "_serialize",
        "_stream_id",
        "_timer",
        "_trailers",
        "_waiting",
        "ended",
        "handler",
        "task",
    )

    def __init__(
        self, outlet: Outlet, stream_id: int, metadata: Metadata, timeout_s: float | None, coding: str, handler: Any
    ) -> None:
        self._outlet = outlet
        self._stream_id = stream_id
        self._metadata = metadata
        self._coding = coding
        self.handler = handler
        self._serialize = handler.response_serializer or as_it_is
        self._trailers: list[RawField] = []
        self._headers_sent = False
        self._inbox: deque[bytes] = deque()
        self._inbox_closed = False
        self._waiting: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            self._deadline = outlet.loop.time() + timeout_s
            self._timer = outlet.loop.call_at(self._deadline, self._expired)

    # The context.

    def invocation_metadata(self) -> Metadata:
        """What the caller sent."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds to the caller's deadline, None where it set none."""
        return None if self._deadline is None else max(0.0, self._deadline - self._outlet.loop.time())

    def peer(self) -> str:
        """The caller's address as gRPC writes it: ipv4:HOST:PORT, ipv6:%5BHOST%5D:PORT."""
        return self._outlet.peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What a verified client certificate says, by gRPC's names; empty where there is none."""
        return self._outlet.auth_context

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Send this with the status.

        Raises:
            ValueError: what no header can carry.
        """
        self._trailers = fields_of(trailing_metadata)

    async def write(self, message: Any) -> None:
        """Send one message; returns when there is room for the next."""
        unsent = self._send(message)
        self._outlet.soon()
        if unsent > UNSENT_BYTES:
            await self._drained()

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with a status.

        Raises:
            grpc.aio.AbortError: always, for the handler to end by.
        """
        trailers = fields_of(trailing_metadata)
        if trailers:
            self._trailers = trailers
        self.end(code, details)
        raise grpc.aio.AbortError("Locally aborted.")

    # How it goes.

    def received(self, payload: bytes, compressed: bool) -> None:
        """The next message from the caller."""
        if self.ended:
            return
        if compressed:
            try:
                payload = decompressed(payload, self._coding, self._outlet.message_bytes)
            except CodingError as error:
                self.fail(grpc.StatusCode.INTERNAL, str(error))
                return
            except TooLarge:
                self.too_long(None)
                return
        self._inbox.append(payload)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def caller_ended(self, *, cut: bool) -> None:
        """The caller has said all; or has ended in the middle of a message."""
        if cut:
            self.fail(grpc.StatusCode.INTERNAL, "the stream ended within a message")
            return
        self._inbox_closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def too_long(self, size: int | None) -> None:
        """The caller sends a message that is longer than it may be; of a compressed one the size is not known."""
        told = "more" if size is None else str(size)
        words = f"Received message larger than max ({told} vs. {self._outlet.message_bytes})"
        self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, words)

    def drained(self) -> None:
        """What was written has left."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def take(self) -> bytes | None:
        """The only message of a call with one request; None where it did not send exactly one."""
        return self._inbox.popleft() if len(self._inbox) == 1 else None

    async def next_message(self) -> bytes | None:
        """The next message; None when the caller has said all."""
        while not self._inbox:
            if self._inbox_closed:
                return None
            self._waiting = self._outlet.loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        payload = self._inbox.popleft()
        self._outlet.taken(self._stream_id)
        return payload

    def finish(self, response: Any) -> None:
        """Send the only response, and OK; nothing where the call has ended."""
        if not self.ended:
            self._send(response)
            self.end(grpc.StatusCode.OK, "")

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Send the status; nothing where the call has ended."""
        if self.ended:
            return
        self._close()
        trailers = [STATUSES[code]]
        if details:
            trailers.append((b"grpc-message", percent_encoded(details)))
        trailers += self._trailers
        if self._headers_sent:
            self._outlet.connection.end(self._stream_id, trailers)
        else:
            self._outlet.connection.respond(self._stream_id, [*RESPONSE, *trailers], True)
        self._outlet.soon()

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """End the call with a status, whatever its handler is at."""
        self.end(code, details)
        self._cancel()

    def gone(self) -> None:
        """The stream is closed: by the caller, by the connection's end, or because all is said."""
        self._close()
        self._cancel()

    def _send(self, message: Any) -> int:
        """Queue it, and tell how many bytes of the call's messages have not left."""
        payload = self._serialize(message)
        if len(payload) > self._outlet.message_bytes:
            words = f"Sent message larger than max ({len(payload)} vs. {self._outlet.message_bytes})"
            self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        if self.ended:
            return 0
        if not self._headers_sent:
            self._headers_sent = True
            self._outlet.connection.respond(self._stream_id, RESPONSE, False)
        return self._outlet.connection.write(self._stream_id, payload, False)

    async def _drained(self) -> None:
        self._room = self._outlet.loop.create_future()
        try:
            await self._room
        finally:
            self._room = None

    def _expired(self) -> None:
        self._timer = None
        self.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _close(self) -> None:
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.cancel()


class Requests:
    """The messages of a call, parsed, one by one.

    Args:
        call: whose.
        parse: makes a message of its bytes.
    """

    def __init__(self, call: ServerCall, parse: Any) -> None:
        self._call = call
        self._parse = parse

    def __aiter__(self) -> "Requests":
        return self

    async def __anext__(self) -> Any:
        payload = await self._call.next_message()
        if payload is None:
            raise StopAsyncIteration
        return parsed(self._parse, payload)
