"""Messages that are none of the protocol: answered in words, where gRPC would write a traceback for each of them.

Anybody who can connect can send as many as he likes, before it is known who he is.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from scheduler.edge import status
from scheduler.errors import invalid

# What stands in the place of such a message.
UNPARSABLE: Final = object()


class ParsingServer:
    """A server as generated code registers a servicer with it; its methods are not called with what cannot be parsed.

    Args:
        server: where the methods are served.
    """

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Generated code tells of the methods twice; by name they can be changed."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Serve the methods, by name."""
        parsing = {name: _parsing(f"{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, parsing)


def _parsing(method: str, handler: Any) -> Any:
    parse = _parser(handler.request_deserializer)
    if handler.request_streaming:
        return handler._replace(request_deserializer=parse, stream_stream=_of_stream(method, handler.stream_stream))
    return handler._replace(request_deserializer=parse, unary_unary=_of_one(method, handler.unary_unary))


def _parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return UNPARSABLE

    return parsed


def _of_one(method: str, behaviour: Any) -> Any:
    async def answer(request: Any, context: Any) -> Any:
        if request is UNPARSABLE:
            return await _refuse(method, context)
        return await behaviour(request, context)

    return answer


def _of_stream(method: str, behaviour: Any) -> Any:
    """The stream ends there, when what came before is answered."""

    async def answer(requests: AsyncIterator[Any], context: Any) -> None:
        ended_early = False

        async def parsable() -> AsyncIterator[Any]:
            nonlocal ended_early
            async for request in requests:
                if request is UNPARSABLE:
                    ended_early = True
                    return
                yield request

        await behaviour(parsable(), context)
        if ended_early:
            await _refuse(method, context)

    return answer


async def _refuse(method: str, context: Any) -> None:
    ended = status.of_request_error(invalid(f"{method}: expected a message of the protocol, got one that is none"))
    await context.abort(ended.code, ended.message, ended.trailers)
