"""A backend between Fairlane and a fake Triton that answers some methods with whatever bytes a test wants."""

from collections.abc import Callable
from typing import Any

import grpc

from scheduler.edge.server import INFERENCE

Garble = Callable[[bytes], bytes]


def _bytes(message: bytes) -> bytes:
    return message


class GarblingBackend:
    """Hands every call on as bytes, and the answer back, garbled where `garbled` has its method.

    Attributes:
        garbled: method name to what becomes of its serialized answer; may be changed while it runs.
    """

    def __init__(self, behind: str) -> None:
        self.garbled: dict[str, Garble] = {}
        self._channel = grpc.aio.insecure_channel(behind)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((_Handler(self._answer),))

    async def start(self) -> str:
        """Listen on a free port; returns HOST:PORT."""
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        """End at once."""
        await self._server.stop(None)
        await self._channel.close()

    async def _answer(self, method: str, message: bytes, context: Any) -> bytes:
        call: Any = self._channel.unary_unary(f"/{INFERENCE}/{method}", _bytes, _bytes)
        try:
            answer: bytes = await call(message)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
        return self.garbled.get(method, _bytes)(answer)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, answer: Callable[[str, bytes, Any], Any]) -> None:
        self._answer = answer

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]

        async def handle(message: bytes, context: Any) -> bytes:
            answer: bytes = await self._answer(method, message, context)
            return answer

        return grpc.unary_unary_rpc_method_handler(handle, _bytes, _bytes)
