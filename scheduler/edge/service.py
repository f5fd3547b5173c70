"""`inference.GRPCInferenceService`: ModelInfer is scheduled, health and metadata are answered or relayed."""

from collections.abc import Coroutine
from typing import Any, Final, NoReturn

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.config import Config
from scheduler.core.ticket import Ticket
from scheduler.driver import Driver, Refused
from scheduler.edge import status
from scheduler.edge.classify import NAME_LENGTH, Caller, Classifier
from scheduler.edge.validate import check
from scheduler.errors import RequestError, no_backend
from scheduler.telemetry.hooks import NULL, Telemetry
from scheduler.triton.catalog import Catalog
from scheduler.triton.merge import merge_key
from scheduler.triton.pool import BackendFailure, Call, Pool

# A metadata call that Triton has not answered by then will not be.
RELAY_TIMEOUT_S: Final = 10.0
# RPCs answered by one ready backend; what they tell is the same on all.
RELAYED: Final = ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")
# RPCs that change or tell the state of one backend, or that are not scheduled yet.
REFUSED: Final = (
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The service as clients of Triton know it. Method names are the protocol's."""

    def __init__(
        self,
        config: Config,
        driver: Driver[Call, Any],
        catalog: Catalog,
        pool: Pool,
        telemetry: Telemetry = NULL,
    ) -> None:
        self._config = config
        self._telemetry = telemetry
        self._classifier = Classifier(config)
        self._driver = driver
        self._catalog = catalog
        self._pool = pool
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether inference is possible: a backend is ready, and the service is not shutting down."""
        return not self.draining and bool(self._catalog.ready())

    async def ModelInfer(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        """Schedule one inference request."""
        try:
            caller = self._classifier.classify(request, context.invocation_metadata(), context.time_remaining())
            # Echoed on every way a call can end: in the answer, and in a trailer.
            request.id = caller.request_id
            context.set_trailing_metadata(_id_trailer(caller.request_id))
            arrived = self._driver.now()
            ticket = await self._ticket(request, caller, arrived)
            self._telemetry.received(
                ticket,
                request_id=caller.request_id,
                headers=context.invocation_metadata() or (),
                arrived=arrived,
                now=self._driver.now(),
            )
            return await self._driver.submit(ticket, Call(request, ticket))
        except RequestError as error:
            self._telemetry.invalid(error.reason)
            ended = status.of_request_error(error)
        except Refused as refused:
            ended = status.of_refusal(refused)
        except BackendFailure as failure:
            ended = status.of_backend_failure(failure)
        aborting = _abort(context, ended, request.id)
        # gRPC keeps the exception that ends a call in its context; this frame must not close that circle.
        del context
        return await aborting

    async def ModelStreamInfer(self, request_iterator: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802
        """Refuse: streams are not scheduled yet, and unscheduled they would pass by everyone's share."""
        del request_iterator
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ModelStreamInfer is not scheduled yet; use ModelInfer")

    async def ServerLive(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        """The scheduler is there."""
        del request, context
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        """Whether a backend is ready and the service is not shutting down."""
        del request, context
        return service_pb2.ServerReadyResponse(ready=self.ready)

    async def relay(self, method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Hand a call to a ready backend as it is, and its answer or its error back."""
        ready = self._catalog.ready()
        if not ready:
            error = no_backend("no backend is ready")
            return await _abort(context, status.of_request_error(error), "")
        name = getattr(request, "name", "")
        backend = next((each for each in ready if name and self._catalog.serves(each, name)), ready[0])
        try:
            return await getattr(self._pool.stub(backend), method)(request, timeout=RELAY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return await context.abort(error.code(), error.details() or "")

    async def _ticket(self, request: Any, caller: Caller, arrived: float) -> Ticket:
        spec = await self._catalog.find(request.model_name, request.model_version)
        rows = check(request, spec)
        return Ticket(
            ticket_id=self._driver.next_ticket_id(),
            priority_class=caller.priority_class,
            tenant=caller.tenant,
            model=spec.name,
            rows=rows,
            queue_bytes=request.ByteSize(),
            merge_key=merge_key(request, spec) if self._config.merges(spec.name) else None,
            deadline=None if caller.timeout_s is None else arrived + caller.timeout_s,
        )


def _abort(
    context: grpc.aio.ServicerContext[Any, Any], ended: status.Status, request_id: str
) -> Coroutine[Any, Any, NoReturn]:
    return context.abort(ended.code, ended.message, (*ended.trailers, *_id_trailer(request_id)))


def _id_trailer(request_id: str) -> tuple[tuple[str, str], ...]:
    """The trailer that echoes the id; none for an id that a header cannot carry."""
    if not request_id or len(request_id) > NAME_LENGTH or not (request_id.isascii() and request_id.isprintable()):
        return ()
    return (("x-request-id", request_id),)


def _relayed(method: str) -> Any:
    async def handler(self: InferenceService, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await self.relay(method, request, context)

    return handler


def _refused(method: str) -> Any:
    async def handler(self: InferenceService, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        del self, request
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, f"{method} concerns one backend; send it to Triton itself, not to Fairlane"
        )

    return handler


for _method in RELAYED:
    setattr(InferenceService, _method, _relayed(_method))
for _method in REFUSED:
    setattr(InferenceService, _method, _refused(_method))
