"""The gRPC server: Triton's service, gRPC health and reflection, TLS, and bounds on what a peer can make it hold."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.config import Config
from scheduler.edge.certificates import Certificates
from scheduler.edge.service import InferenceService
from scheduler.edge.unparsable import ParsingServer
from scheduler.errors import StartError

# Answers that are ready leave within this time when the server stops.
LAST_ANSWERS_S: Final = 1.0
INFERENCE: Final = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Wire(Protocol):
    """What carries the calls."""

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Generated code tells of the methods twice; this is not needed."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Serve the methods, by name."""

    async def listen(self, host: str, port: int, certificates: Certificates | None) -> int:
        """Listen, and return the port (the chosen one where `port` is 0).

        Raises:
            OSError: the address cannot be bound.
        """

    async def stop(self, grace_s: float) -> None:
        """Stop listening; calls have so long to end."""


class EdgeServer:
    """Serves `InferenceService` on one address.

    Args:
        config: where to listen, TLS and limits.
        service: what is served.
        wire: what carries the calls.
    """

    def __init__(self, config: Config, service: InferenceService, wire: Wire) -> None:
        self._listen = config.listen
        self._service = service
        self._server = wire
        self._health = health.aio.HealthServicer()
        self._telling: asyncio.Task[None] | None = None
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, ParsingServer(self._server))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        # Not by `enable_server_reflection`: it knows grpcio's own servers, and takes any other for one with threads.
        names = (INFERENCE, HEALTH, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
            reflection.aio.ReflectionServicer(names), self._server
        )

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the chosen one where `port` is 0).

        Raises:
            StartError: the address cannot be bound, or the certificate cannot be used.
        """
        certificates = None if self._listen.tls is None else Certificates(self._listen.tls)
        await self._tell_health()
        try:
            return await self._server.listen(host, port, certificates)
        except OSError as error:
            raise StartError(f"listen.grpc: {host}:{port}: cannot be bound: {error.strerror or error}") from None

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
