"""A client's connection: from HTTP/2's events to the calls that wait for them."""

import asyncio
from collections.abc import Callable
from typing import Final

import grpc

from scheduler.wire import _h2
from scheduler.wire.client_call import ClientCall
from scheduler.wire.fields import RawField
from scheduler.wire.outlet import Outlet
from scheduler.wire.sizes import CONNECTION_WINDOW, STREAM_WINDOW

NO_ERROR: Final = 0


class ClientConnection(Outlet):
    """One connection to a server.

    Args:
        message_bytes: of one answer, at most.
        metadata_bytes: of one answer's header fields, at most.
        left: is called with this when it takes no more calls: the server said so, or it has ended.

    Attributes:
        greeted: done when the server has spoken HTTP/2, or the connection has ended before.
        ended: done when the connection has ended.
        leaving: whether it takes no more calls.
    """

    def __init__(self, message_bytes: int, metadata_bytes: int, left: Callable[["ClientConnection"], object]) -> None:
        connection = _h2.Connection(
            client=True,
            message_bytes=message_bytes,
            metadata_bytes=metadata_bytes,
            streams=0,
            stream_window=STREAM_WINDOW,
            connection_window=CONNECTION_WINDOW,
        )
        super().__init__(connection, message_bytes)
        self.greeted: asyncio.Future[None] = self.loop.create_future()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self.leaving = False
        self._calls: dict[int, ClientCall] = {}
        self._on_left = left

    def begin(self, call: ClientCall, fields: list[RawField]) -> int:
        """Begin a call on a stream of its own.

        Raises:
            _h2.ConnectionBroken: no stream is left.
        """
        stream_id = self.connection.request(fields)
        self._calls[stream_id] = call
        return stream_id

    def shut(self) -> None:
        """End the connection; calls that are open are cancelled."""
        for call in list(self._calls.values()):
            call.cancel()
        self.connection.terminate(NO_ERROR)
        self._flush()
        self.close()

    def dispatch(self, events: list[_h2.Event]) -> None:
        """Hear what has happened."""
        for event in events:
            kind = event[0]
            call = self._calls.get(event[1])
            if kind == _h2.GOAWAY:
                self._on_left(self)
            elif kind == _h2.SETTINGS:
                if not self.greeted.done():
                    self.greeted.set_result(None)
            elif call is None:
                continue
            elif kind == _h2.MESSAGE:
                call.message(event[2], event[3])
            elif kind == _h2.HEADERS:
                call.headers(event[2], ended=event[3])
            elif kind == _h2.CLOSED:
                del self._calls[event[1]]
                call.closed(event[2])
                if not self._calls:
                    self.soon()  # one that takes no more calls ends with the last
            elif kind == _h2.DRAINED:
                call.drained()
            elif kind == _h2.TOO_LONG:
                call.too_long(event[2])

    def lost(self) -> None:
        """The connection has ended."""
        self.ended.set_result(None)
        self._on_left(self)
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionError("the server ended the connection before it spoke HTTP/2"))
            self.greeted.exception()  # nobody waits for it any more where connecting took too long
        calls, self._calls = self._calls, {}
        guilty = calls.get(self.connection.header_of)
        if guilty is not None and self.connection.finished:
            # It is we who ended it: nghttp2 cannot read that, and no call of the connection can go on after it.
            words = "the answer's header fields cannot be read, or one is over 64 KiB long"
            guilty.fail(grpc.StatusCode.INTERNAL, words)
        for call in calls.values():
            call.fail(grpc.StatusCode.UNAVAILABLE, "the connection to the server was lost")
