"""A gRPC client on nghttp2: a channel to one server, for stubs as grpc's generated code makes them."""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from scheduler.wire._h2 import ConnectionBroken
from scheduler.wire.client_call import ClientCall, StreamCall, UnaryCall
from scheduler.wire.client_connection import ClientConnection
from scheduler.wire.coding import ACCEPTED
from scheduler.wire.fields import RawField, fields_of

# A server that has not spoken HTTP/2 by then counts as not there.
CONNECT_S: Final = 2.0
NEXT_ADDRESS_S: Final = 0.25
# Between two tries to connect: it doubles from one to the other.
FIRST_BACKOFF_S: Final = 0.1
MOST_BACKOFF_S: Final = 1.0
# What a message's four bytes of length can say.
MESSAGE_BYTES: Final = 2**32


@dataclass(frozen=True, slots=True)
class Place:
    """Where a channel leads.

    Attributes:
        host: name or address.
        port: the server's.
        tls: None: plain text.
        server_name: name that its certificate is of; None: the host.
        secrets: header fields that each call has.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    secrets: tuple[tuple[str, str], ...] = ()


class Channel:
    """One connection to a server at a time. It is made for the first call, and anew when it was lost.

    Calls that are made meanwhile wait. Where the server cannot be reached they fail with UNAVAILABLE, and so do those
    that are made before the next try is due. What is used of `grpc.aio.Channel` is here under its names.

    Args:
        place: where to.
        metadata_bytes: of an answer's header fields, at most.
        user_agent: what the server is told of who calls.
    """

    def __init__(self, place: Place, *, metadata_bytes: int, user_agent: str) -> None:
        self._place = place
        self._metadata_bytes = metadata_bytes
        self._connection: ClientConnection | None = None
        # Those that take no more calls, and have some.
        self._leaving: set[ClientConnection] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._waiting: deque[ClientCall] = deque()
        self._backoff_s = FIRST_BACKOFF_S
        self._retry_at = 0.0
        self._why = ""
        self._closed = False
        host = f"[{place.host}]" if ":" in place.host else place.host
        self._named = f"{host}:{place.port}"
        self._first: list[RawField] = [
            (b":method", b"POST"),
            (b":scheme", b"http" if place.tls is None else b"https"),
            (b":authority", (self._named if place.server_name is None else place.server_name).encode()),
        ]
        self._common: list[RawField] = [
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", user_agent.encode()),
            (b"grpc-accept-encoding", ACCEPTED),
            *fields_of(place.secrets),
        ]

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = None,
    ) -> Callable[..., UnaryCall]:
        """The method, to be called with a request, `timeout` in seconds and `metadata`."""
        fields = [*self._first, (b":path", method.encode()), *self._common]

        def call(request: Any, *, timeout: float | None = None, metadata: Iterable[Any] | None = None) -> UnaryCall:
            payload = request if request_serializer is None else request_serializer(request)
            of_call = [*fields, *fields_of(metadata)] if metadata else fields
            made = UnaryCall(of_call, payload, response_deserializer, timeout)
            self._begin(made)
            return made

        return call

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = None,
    ) -> Callable[..., StreamCall]:
        """The method, to be called with `timeout` in seconds and `metadata`."""
        fields = [*self._first, (b":path", method.encode()), *self._common]

        def call(*, timeout: float | None = None, metadata: Iterable[Any] | None = None) -> StreamCall:
            of_call = [*fields, *fields_of(metadata)] if metadata else fields
            made = StreamCall(of_call, request_serializer, response_deserializer, timeout)
            self._begin(made)
            return made

        return call

    def get_state(self) -> grpc.ChannelConnectivity:
        """Whether there is a connection."""
        if self._closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        if self._connection is not None:
            return grpc.ChannelConnectivity.READY
        if self._connecting is not None:
            return grpc.ChannelConnectivity.CONNECTING
        if asyncio.get_running_loop().time() < self._retry_at:
            return grpc.ChannelConnectivity.TRANSIENT_FAILURE
        return grpc.ChannelConnectivity.IDLE

    async def close(self) -> None:
        """End the connection; calls that are open are cancelled."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        while self._waiting:
            self._waiting.popleft().cancel()
        connections = [*self._leaving] if self._connection is None else [self._connection, *self._leaving]
        for connection in connections:
            connection.shut()
        await asyncio.gather(*(connection.ended for connection in connections))

    def _begin(self, call: ClientCall) -> None:
        """Begin a call, or have it wait for the connection.

        Raises:
            grpc.aio.UsageError: the channel is closed.
        """
        if self._closed:
            raise grpc.aio.UsageError("Channel is closed.")
        if self._connection is not None:
            try:
                call.begin(self._connection)
            except ConnectionBroken:
                # It has had as many calls as a connection can have.
                self._left(self._connection)
            else:
                return
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            if loop.time() < self._retry_at:
                call.fail(grpc.StatusCode.UNAVAILABLE, self._why)
                return
            self._connecting = loop.create_task(self._connect())
        self._waiting.append(call)

    async def _connect(self) -> None:
        """Make the connection, and begin the calls that wait for it."""
        try:
            connection = await self._made()
        except (OSError, TimeoutError) as error:
            self._connecting = None
            self._failed(f"failed to connect to {self._named}: {str(error) or f'no answer within {CONNECT_S:g} s'}")
            return
        self._connecting = None
        self._backoff_s = FIRST_BACKOFF_S
        self._connection = connection
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            if not call.over:
                self._begin(call)

    async def _made(self) -> ClientConnection:
        """A connection on which the server has spoken HTTP/2.

        Raises:
            OSError: there is none, or it takes no calls.
            TimeoutError: it does not answer.
        """
        place, connection = self._place, None
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: ClientConnection(MESSAGE_BYTES, self._metadata_bytes, self._left),
                    place.host,
                    place.port,
                    ssl=place.tls,
                    server_hostname=None if place.tls is None else place.server_name or place.host,
                    # Of a name with several addresses one that does not answer must not use up the time.
                    happy_eyeballs_delay=NEXT_ADDRESS_S,
                )
                await connection.greeted
        except BaseException:
            if connection is not None:
                connection.cut()
            raise
        if connection.leaving:
            raise ConnectionError("the server takes no calls")
        return connection

    def _failed(self, why: str) -> None:
        self._why = why
        self._retry_at = asyncio.get_running_loop().time() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, MOST_BACKOFF_S)
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.fail(grpc.StatusCode.UNAVAILABLE, why)

    def _left(self, connection: ClientConnection) -> None:
        """It takes no more calls."""
        connection.leaving = True
        if connection is self._connection:
            self._connection = None
        if connection.ended.done():
            self._leaving.discard(connection)
        else:
            self._leaving.add(connection)
