"""The gRPC server: Triton's service, gRPC health and reflection, TLS, and bounds on what a peer can make it hold."""

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.config import Config, Limits
from scheduler.edge.certificates import Certificates
from scheduler.edge.service import InferenceService
from scheduler.edge.unparsable import ParsingServer
from scheduler.errors import StartError

# Answers that are ready leave within this time when the server stops.
LAST_ANSWERS_S: Final = 1.0
# A peer that does not answer a ping within this time has gone.
PING_TIMEOUT_S: Final = 20.0
# Clients may ping as often as stock clients can be told to; more often twice, and the connection is closed.
CLIENT_PING_S: Final = 5.0
# A TLS handshake takes milliseconds; one that takes longer is somebody who holds a socket.
HANDSHAKE_S: Final = 20.0
INFERENCE: Final = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class EdgeServer:
    """Serves `InferenceService` on one address.

    Args:
        config: where to listen, TLS and limits.
        service: what is served.
    """

    def __init__(self, config: Config, service: InferenceService) -> None:
        self._listen = config.listen
        self._service = service
        self._server = grpc.aio.server(options=_options(config.limits))
        self._health = health.aio.HealthServicer()
        self._telling: asyncio.Task[None] | None = None
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, ParsingServer(self._server))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((INFERENCE, HEALTH, reflection.SERVICE_NAME), self._server)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the chosen one where `port` is 0).

        Raises:
            StartError: the address cannot be bound, or the certificate cannot be used.
        """
        address = f"{host}:{port}"
        credentials = None if self._listen.tls is None else Certificates(self._listen.tls).credentials()
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise StartError(f"listen.grpc: {address}: cannot be bound: {error}") from None
        await self._tell_health()
        await self._server.start()
        return bound

    def readiness_changed(self) -> None:
        """Tell the watchers of gRPC health."""
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell_health())

    async def stop(self) -> None:
        """Stop listening; what is ready to be sent leaves."""
        if self._telling is not None:
            await self._telling
        await self._server.stop(LAST_ANSWERS_S)

    async def _tell_health(self) -> None:
        told = None
        while told is not self._service.ready:
            told = self._service.ready
            state = health_pb2.HealthCheckResponse.SERVING if told else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in ("", INFERENCE):
                await self._health.set(name, state)


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
        ("grpc.keepalive_timeout_ms", round(PING_TIMEOUT_S * 1000)),
        # gRPC 1.78 closes at this one, a minute unless it is set, whatever the one above says.
        ("grpc.http2.ping_timeout_ms", round(PING_TIMEOUT_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", round(CLIENT_PING_S * 1000)),
        ("grpc.max_connection_idle_ms", round(limits.idle_s * 1000)),
        ("grpc.server_handshake_timeout_ms", round(HANDSHAKE_S * 1000)),
    ]
