"""The edge's server on `grpc.aio`."""

from collections.abc import Mapping
from typing import Any

import grpc

from scheduler.config import Limits
from scheduler.edge import patience
from scheduler.edge.certificates import Certificates


class GrpcioServer:
    """Serves methods as generated code registers them; see edge/server.py's Wire.

    Args:
        limits: bounds on what a peer can make it hold.
    """

    def __init__(self, limits: Limits) -> None:
        self._server = grpc.aio.server(options=_options(limits))

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Generated code tells of the methods twice; this is not needed."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve the methods, by name."""
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))

    async def listen(self, host: str, port: int, certificates: Certificates | None) -> int:
        """Listen, and return the port.

        Raises:
            OSError: the address cannot be bound.
        """
        address = f"{host}:{port}"
        try:
            if certificates is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, certificates.credentials())
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """Stop listening; calls have so long to end."""
        await self._server.stop(grace_s)


def _options(limits: Limits) -> list[tuple[str, Any]]:
    ages = {
        "grpc.max_connection_age_ms": limits.connection_age_s,
        "grpc.max_connection_age_grace_ms": limits.connection_grace_s,
    }
    return [
        *((name, max(1, round(seconds * 1000))) for name, seconds in ages.items() if seconds is not None),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_receive_message_length", limits.message_bytes),
        # Two schedulers on one port would each see half of the traffic, in silence.
        ("grpc.so_reuseport", 0),
        # The soft limit refuses at random between the two; the same value refuses all above.
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.max_concurrent_streams", limits.calls_per_connection),
        # Calls that came in one burst and were not looked at yet: gRPC cancels some at random from 1,000 on.
        ("grpc.server.max_pending_requests", limits.calls_per_connection),
        ("grpc.server.max_pending_requests_hard_limit", limits.calls_per_connection),
        ("grpc.keepalive_time_ms", round(limits.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(patience.PING_TIMEOUT_S * 1000)),
        # gRPC 1.78 closes at this one, a minute unless it is set, whatever the one above says.
        ("grpc.http2.ping_timeout_ms", round(patience.PING_TIMEOUT_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", round(patience.CLIENT_PING_S * 1000)),
        ("grpc.max_connection_idle_ms", round(limits.idle_s * 1000)),
        ("grpc.server_handshake_timeout_ms", round(patience.HANDSHAKE_S * 1000)),
    ]
