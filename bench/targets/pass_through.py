"""A plain pass-through: what any hop written in Python costs, for comparison with the scheduler.

`python -m bench.targets.pass_through HOST:PORT` relays every unary RPC to that server, bytes in, bytes out,
nothing parsed or decided, and prints `ready HOST:PORT` with its own address.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import grpc.aio

OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class PassThrough(grpc.GenericRpcHandler):
    """Takes every method and calls the same one upstream."""

    def __init__(self, upstream: grpc.aio.Channel) -> None:
        self._upstream = upstream
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """The handler of a method, made on its first call."""
        method = handler_call_details.method
        if method not in self._handlers:
            self._handlers[method] = grpc.unary_unary_rpc_method_handler(self._relay(method))
        return self._handlers[method]

    def _relay(self, method: str) -> Handler:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._upstream.unary_unary(method)

        async def relay(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            try:
                return await call(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")
                raise AssertionError("unreachable: abort raises") from error

        return relay


async def serve(upstream: str) -> None:
    """Relay until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with grpc.aio.insecure_channel(upstream, options=OPTIONS) as channel:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((PassThrough(channel),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"ready 127.0.0.1:{port}", flush=True)
        await stop.wait()
        await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
