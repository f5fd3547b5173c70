"""A server's connection: from HTTP/2's events to calls of handlers."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import grpc

from scheduler.wire import _h2
from scheduler.wire.coding import IDENTITY, known
from scheduler.wire.fields import Field, RawField, metadata_of, percent_encoded, seconds_of
from scheduler.wire.outlet import Outlet
from scheduler.wire.server_call import RESPONSE, STATUSES, Requests, ServerCall, Unparsable, as_it_is, parsed
from scheduler.wire.sizes import CONNECTION_WINDOW, STREAM_WINDOW, ServerSizes
from scheduler.wire.upkeep import Upkeep

log = logging.getLogger(__name__)

DRAIN_PING: Final = b"drained?"
# A client that has not answered it by then does not.
DRAIN_ANSWER_S: Final = 5.0
NO_ERROR: Final = 0
ENHANCE_YOUR_CALM: Final = 11
GRPC: Final = "application/grpc"


class ServerConnection(Outlet):
    """One client's connection.

    Args:
        handlers: by path, as grpc makes them.
        sizes: its bounds.
        made: is called with this when the connection is made.
        left: is called with this when it has ended.
    """

    def __init__(
        self,
        handlers: Mapping[str, Any],
        sizes: ServerSizes,
        made: Callable[["ServerConnection"], object],
        left: Callable[["ServerConnection"], object],
    ) -> None:
        connection = _h2.Connection(
            client=False,
            message_bytes=sizes.message_bytes,
            metadata_bytes=sizes.metadata_bytes,
            streams=sizes.calls,
            stream_window=STREAM_WINDOW,
            connection_window=CONNECTION_WINDOW,
        )
        super().__init__(connection, sizes.message_bytes)
        self._handlers = handlers
        self._sizes = sizes
        self._made = made
        self._left = left
        self._calls: dict[int, ServerCall] = {}
        self._why = b""
        self._upkeep: Upkeep

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; with TLS it is shaken hands on."""
        self._upkeep = Upkeep(self, self._sizes, lambda: bool(self._calls), self.drain)
        self._made(self)
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.cut()

    def drain(self, why: str) -> None:
        """Tell the client to make no more calls here; those under way go on, and then the connection is closed."""
        self._why = why.encode()
        self.connection.announce_goaway()
        # What it sends before it hears of that is answered: the last call is known when it has answered this.
        self.connection.ping(DRAIN_PING)
        self.loop.call_later(DRAIN_ANSWER_S, self._drained)
        self.soon()

    def end_calls(self) -> None:
        """End all calls that are still open."""
        for call in list(self._calls.values()):
            call.fail(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        self.connection.goaway(NO_ERROR, self._why)
        self._flush()

    def soon(self) -> None:
        """Send at the end of this turn of the loop."""
        self._upkeep.answered()
        super().soon()

    def dispatch(self, events: list[_h2.Event]) -> None:
        """Hear what has happened."""
        for event in events:
            kind, stream_id = event[0], event[1]
            if kind == _h2.HEADERS:
                self._begin(stream_id, event[2])
                continue
            call = self._calls.get(stream_id)
            if call is None:
                self._heard(kind, event)
            elif kind == _h2.MESSAGE:
                call.received(event[2], event[3])
            elif kind == _h2.END:
                call.caller_ended(cut=event[2])
                if call.task is None and not call.ended:
                    self._run(call, _answer(call))
            elif kind == _h2.CLOSED:
                del self._calls[stream_id]
                call.gone()
                if not self._calls:
                    self._upkeep.idle()
            elif kind == _h2.DRAINED:
                call.drained()
            elif kind == _h2.TOO_LONG:
                call.too_long(event[2])

    def lost(self) -> None:
        """The connection has ended."""
        self._upkeep.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.gone()
        self._left(self)

    def _heard(self, kind: int, event: _h2.Event) -> None:
        """Of the connection as a whole."""
        if kind == _h2.PING:
            if self._upkeep.too_many_pings():
                self.connection.goaway(ENHANCE_YOUR_CALM, b"too_many_pings")
                self.connection.terminate(ENHANCE_YOUR_CALM)
        elif kind == _h2.PONG:
            if event[2] == DRAIN_PING:
                self._drained()
        elif kind == _h2.SETTINGS:
            self._upkeep.greeted()

    def _drained(self) -> None:
        """No call that is not here yet is taken any more."""
        self.connection.goaway(NO_ERROR, self._why)
        self.soon()

    def _begin(self, stream_id: int, fields: list[Field] | None) -> None:
        """A call begins, or is refused."""
        if fields is None:
            self._refuse(stream_id, grpc.StatusCode.RESOURCE_EXHAUSTED, "received metadata size exceeds hard limit")
            return
        about = dict(fields)
        if about.get(":method") != "POST":
            self.connection.respond(stream_id, [(b":status", b"405")], True)
            return
        if not about.get("content-type", "").startswith(GRPC):
            self.connection.respond(stream_id, [(b":status", b"415")], True)
            return
        handler = self._handlers.get(about.get(":path", ""))
        if handler is None:
            self._refuse(stream_id, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            return
        coding = about.get("grpc-encoding", IDENTITY)
        if not known(coding):
            self._refuse(stream_id, grpc.StatusCode.UNIMPLEMENTED, f"grpc-encoding {coding:.100} is not known")
            return
        timeout = about.get("grpc-timeout")
        timeout_s = None if timeout is None else seconds_of(timeout)
        call = ServerCall(self, stream_id, metadata_of(fields), timeout_s, coding, handler)
        self._calls[stream_id] = call
        if handler.request_streaming:
            self._run(call, _answer(call))

    def _refuse(self, stream_id: int, code: grpc.StatusCode, details: str) -> None:
        status: list[RawField] = [STATUSES[code], (b"grpc-message", percent_encoded(details))]
        self.connection.respond(stream_id, [*RESPONSE, *status], True)

    def _run(self, call: ServerCall, answer: Coroutine[Any, Any, None]) -> None:
        call.task = self.loop.create_task(answer)


async def _answer(call: ServerCall) -> None:
    """Have the handler answer, and end the call whatever it does."""
    handler = call.handler
    parse = handler.request_deserializer or as_it_is
    try:
        if handler.request_streaming:
            request: Any = Requests(call, parse)
            behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary
        else:
            payload = call.take()
            if payload is None:
                call.end(grpc.StatusCode.INTERNAL, "expected one message")
                return
            request = parsed(parse, payload)
            behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
        if not handler.response_streaming:
            call.finish(await behaviour(request, call))
            return
        responses = behaviour(request, call)
        if hasattr(responses, "__aiter__"):
            async for response in responses:
                await call.write(response)
        else:
            await responses
        call.end(grpc.StatusCode.OK, "")
    except grpc.aio.AbortError:
        call.end(grpc.StatusCode.UNKNOWN, "")
    except Unparsable as error:
        # Not logged: anybody can send as many as he likes.
        call.end(grpc.StatusCode.INTERNAL, str(error))
    except asyncio.CancelledError:
        # By us the call has ended already.
        call.end(grpc.StatusCode.CANCELLED, "the handler was cancelled")
    except Exception as error:
        log.exception("a handler failed")
        call.end(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
    finally:
        call.task = None
