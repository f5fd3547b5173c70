"""A gRPC server on nghttp2, for handlers as grpc's generated code registers them."""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

from scheduler.wire.server_connection import ServerConnection
from scheduler.wire.sizes import ServerSizes

# Connections that the kernel has made and we have not taken.
BACKLOG: Final = 1024


class Server:
    """Serves methods of all four forms over HTTP/2 with prior knowledge, or over TLS.

    Args:
        sizes: bounds of each connection.
    """

    def __init__(self, sizes: ServerSizes) -> None:
        self._sizes = sizes
        self._handlers: dict[str, Any] = {}
        self._listening: list[asyncio.Server] = []
        self._connections: set[ServerConnection] = set()
        self._someone_left = asyncio.Event()

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Generated code tells of the methods twice; by name they are found sooner."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve the methods, by name."""
        self._handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    async def bind(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on each address of the host, and return the port (the chosen one where `port` is 0).

        Raises:
            OSError: an address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        handshake_s = None if tls is None else self._sizes.handshake_s
        for address in dict.fromkeys(str(each[4][0]) for each in found):
            server = await loop.create_server(
                self._protocol, address, port, ssl=tls, backlog=BACKLOG, ssl_handshake_timeout=handshake_s
            )
            self._listening.append(server)
            port = server.sockets[0].getsockname()[1]
        return port

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let calls end for so long, and end the rest with UNAVAILABLE."""
        for server in self._listening:
            server.close()
        for connection in self._connections:
            connection.drain("shutdown")
        try:
            async with asyncio.timeout(grace_s):
                await self._until_left()
        except TimeoutError:
            for connection in list(self._connections):
                connection.end_calls()
                connection.close()
        await self._until_left()

    async def _until_left(self) -> None:
        while self._connections:
            self._someone_left.clear()
            await self._someone_left.wait()

    def _protocol(self) -> ServerConnection:
        return ServerConnection(self._handlers, self._sizes, self._connections.add, self._left)

    def _left(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        self._someone_left.set()
