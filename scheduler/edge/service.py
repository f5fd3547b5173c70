"""`inference.GRPCInferenceService`: inference is scheduled, the rest is answered, relayed, or fanned out."""

from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import Any, Final, NoReturn

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.config import Config
from scheduler.core.outcome import Outcome
from scheduler.driver import Driver, Refused
from scheduler.edge import status
from scheduler.edge.access import NAME_LENGTH, Access
from scheduler.edge.audit import Audit
from scheduler.edge.classify import Caller, Classifier
from scheduler.edge.context import Context
from scheduler.edge.intake import Intake
from scheduler.edge.merge_check import MergeChecks
from scheduler.edge.relay import Relay
from scheduler.edge.statistics import QueueTimes
from scheduler.edge.stream import GRPC_ERROR_HEADER, InferenceStream, Responses, StreamEnded, streamed
from scheduler.errors import RequestError, not_loaded
from scheduler.telemetry.hooks import NULL, Header, Telemetry
from scheduler.triton.catalog import Catalog
from scheduler.triton.pool import BackendFailure, Call, Pool
from scheduler.triton.queue_policy import NO_POLICIES, QueuePolicies

# Answered by one ready backend; what they tell is the same on all.
RELAYED: Final = ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig")
# Carried out by every backend, or an error; for tenants with `admin`.
FANNED_OUT: Final = ("RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings")
# Carried out by the only backend, refused where there are several; for tenants with `admin`.
OF_THE_ONLY_BACKEND: Final = (
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
)
REFUSED_ACCESS: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})


class InferenceService(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The service as clients of Triton know it. Method names are the protocol's."""

    def __init__(
        self,
        config: Config,
        driver: Driver[Call, Any],
        catalog: Catalog,
        pool: Pool,
        audit: Audit,
        telemetry: Telemetry = NULL,
    ) -> None:
        self._telemetry = telemetry
        self._driver = driver
        self._catalog = catalog
        self._checks = MergeChecks(config, driver, telemetry)
        pool.watch = self._checks
        self._intake = Intake(config, driver, pool, telemetry, self._checks)
        self._relay = Relay(pool, catalog)
        self._queue_times = QueueTimes()
        self._audit = audit
        self._message_bytes = config.limits.message_bytes
        self.draining = False
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Go on with these settings of tenants, classes and models; calls under way keep what they began with."""
        self._requests_per_stream = config.limits.requests_per_stream
        self._access = Access(config)
        self._classifier = Classifier(config, self._access, self._queue_of)
        self._intake.configure(config)
        self._checks.configure(config)

    @property
    def ready(self) -> bool:
        """Whether inference is possible: a backend is ready, and the service is not shutting down."""
        return not self.draining and bool(self._catalog.ready())

    def check_monitor(self, credentials: Mapping[str, str], peer: str, what: str) -> None:
        """Check who asks for something that tells of all tenants, known by the same rules as gRPC's callers.

        Args:
            credentials: `authorization` as a call's metadata would have it; empty where none came.
            peer: the caller's address, for the audit log.
            what: what is asked for.

        Raises:
            RequestError: UNAUTHENTICATED, PERMISSION_DENIED.
        """
        try:
            self._access.check_monitor(self._access.identify(credentials, dict), what)
        except RequestError as error:
            self._audit.refused(error.tenant, peer, what, f"{error.code.name}: {error}")
            raise

    async def close(self) -> None:
        """End what the service asks on its own."""
        await self._checks.close()

    def may_monitor(self, credentials: Mapping[str, str]) -> bool:
        """Whether who shows these may see what is told of all tenants; for what answers others, too, with less."""
        try:
            self._access.check_monitor(self._access.identify(credentials, dict), "")
        except RequestError:
            return False
        return True

    async def ModelInfer(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Schedule one inference request."""
        try:
            metadata = context.invocation_metadata() or ()
            caller = self._classifier.classify(request, _text(metadata), context.time_remaining(), context.auth_context)
            if caller.request_id:
                # Echoed on every way a call can end: in the answer, and in a trailer.
                request.id = caller.request_id
                context.set_trailing_metadata(_id_trailer(caller.request_id))
            answer = await self._scheduled(request, caller, metadata, None)
            oversized = status.of_oversized(answer, answer, self._message_bytes)
            if oversized is None:
                return answer
            ended = oversized
        except RequestError as error:
            self._telemetry.invalid(error.reason)
            ended = self._refused(error, context, "ModelInfer", request.model_name)
        except Refused as refused:
            ended = self._refusal(refused)
        except BackendFailure as failure:
            ended = status.of_backend_failure(failure)
        aborting = _abort(context, ended, request.id)
        # gRPC keeps the exception that ends a call in its context; this frame must not close that circle.
        del context
        return await aborting

    async def ModelStreamInfer(self, request_iterator: AsyncIterator[Any], context: Context) -> None:  # noqa: N802
        """Schedule each request of a stream; see stream.py."""
        headers = _headers(context)

        async def answer(request: Any, responses: Responses) -> Any:
            return await self._answer_on_stream(request, responses, headers, context)

        grpc_error = headers.get(GRPC_ERROR_HEADER, "").lower() == "true"
        outstanding = self._requests_per_stream
        stream = InferenceStream(
            answer,
            self._answers_once,
            context.write,
            outstanding=outstanding,
            message_bytes=self._message_bytes,
            grpc_error=grpc_error,
        )
        try:
            await stream.run(request_iterator)
        except StreamEnded as ended:
            await _abort(context, ended.status, "")

    async def ServerLive(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The scheduler is there."""
        del request, context
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Whether a backend is ready and the service is not shutting down."""
        del request, context
        return service_pb2.ServerReadyResponse(ready=self.ready)

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:  # noqa: N802
        """The models of a ready backend, as far as the caller may use them."""

        async def index(tenant: str) -> Any:
            answer = await self._relay.to_one("RepositoryIndex", request)
            permits = self._access.rights(tenant).permits_model
            kept = [model for model in answer.models if permits(model.name)]
            return service_pb2.RepositoryIndexResponse(models=kept)

        return await self._guarded("RepositoryIndex", context, index)

    async def ModelStatistics(self, request: Any, context: Context) -> Any:  # noqa: N802
        """Statistics of all backends together, as far as the caller may use the models."""

        async def statistics(tenant: str) -> Any:
            if request.name:
                self._access.check_model(tenant, request.name)
            answer = await self._relay.statistics(request, self._queue_times)
            permits = self._access.rights(tenant).permits_model
            kept = [each for each in answer.model_stats if permits(each.name)]
            return service_pb2.ModelStatisticsResponse(model_stats=kept)

        return await self._guarded("ModelStatistics", context, statistics)

    async def relay(self, method: str, request: Any, context: Context) -> Any:
        """Hand a call to a ready backend as it is, and its answer or its error back."""

        async def relayed(tenant: str) -> Any:
            name = getattr(request, "name", "")
            if name:
                self._access.check_model(tenant, name)
            return await self._relay.to_one(method, request)

        return await self._guarded(method, context, relayed)

    async def administer(self, method: str, request: Any, context: Context) -> Any:
        """An admin action, on every backend or on the only one; it stands in the audit log."""
        what = f"{method} {_subject(request)}".strip()

        async def administered(tenant: str) -> Any:
            self._access.check_admin(tenant, method)
            outcome = "ended unexpectedly"
            try:
                if method in FANNED_OUT:
                    answer = await self._relay.to_all(method, request, context.time_remaining())
                else:
                    answer = await self._relay.to_only(method, request)
                outcome = "done"
                if method == "RepositoryModelLoad":
                    self._checks.forget(request.model_name)
            except grpc.aio.AioRpcError as error:
                outcome = f"{error.code().name}: {error.details()}"
                raise
            except RequestError as error:
                outcome = f"{error.code.name}: {error}"
                raise
            finally:
                self._audit.action(tenant, context.peer(), what, outcome)
            return answer

        return await self._guarded(what, context, administered)

    async def _guarded(self, what: str, context: Context, action: Any) -> Any:
        """Run `action(tenant)` for a caller that is known; errors end the call."""
        try:
            return await action(self._access.identify(_headers(context), context.auth_context))
        except RequestError as error:
            ended = self._refused(error, context, what, "")
        except grpc.aio.AioRpcError as error:
            ended = status.Status(error.code(), error.details() or "", ())
        return await _abort(context, ended, "")

    def _refused(self, error: RequestError, context: Context, what: str, model: str) -> status.Status:
        if error.code in REFUSED_ACCESS:
            self._audit.refused(error.tenant, context.peer(), f"{what} {model}".strip(), f"{error.code.name}: {error}")
        return status.of_request_error(error)

    async def _answer_on_stream(
        self, request: Any, responses: Responses, headers: dict[str, str], context: Context
    ) -> Any:
        """A response, a status, or None where the responses have gone their own way."""
        try:
            caller = self._classifier.classify(request, headers, context.time_remaining(), context.auth_context)
            request.id = caller.request_id
            answer = await self._scheduled(request, caller, context.invocation_metadata() or (), responses)
        except RequestError as error:
            self._telemetry.invalid(error.reason)
            return self._refused(error, context, "ModelStreamInfer", request.model_name)
        except Refused as refused:
            return self._refusal(refused)
        except BackendFailure as failure:
            return status.of_backend_failure(failure)
        return None if answer is None else streamed(answer)

    async def _scheduled(
        self, request: Any, caller: Caller, metadata: Iterable[Header], responses: Responses | None
    ) -> Any:
        """Queue the request, and wait for its answer; None where the responses have gone their own way."""
        arrived = self._driver.now()
        model, version = request.model_name, request.model_version
        spec = self._catalog.get(model, version)
        if spec is None:
            spec = await self._catalog.find(model, version, self._access.rights(caller.tenant).permits_model)
        call = self._intake.call(request, caller, spec, metadata, responses, arrived)
        answer = await self._driver.submit(call.ticket, call)
        if answer is not None:
            self._queue_times.add(answer.model_name, answer.model_version, call.sent_at - call.queued_at)
        return answer

    def _queue_of(self, model: str, version: str) -> QueuePolicies:
        """The model's queue policies, where it is known."""
        spec = self._catalog.get(model, version)
        return NO_POLICIES if spec is None else spec.queue

    def _refusal(self, refused: Refused) -> status.Status:
        """The core knows that no backend serves a model; why, where one has it and could not load it, is known here."""
        ticket = refused.ticket
        if refused.outcome is Outcome.NO_BACKEND and (about := self._catalog.unserved().get(ticket.model)) is not None:
            return status.of_request_error(not_loaded(ticket.model, about.why, loading=about.loading))
        return status.of_refusal(refused)

    async def _answers_once(self, request: Any) -> bool:
        """Whether the model gives one response to a request; so does one that nobody knows: an error."""
        try:
            return not (await self._catalog.find(request.model_name, request.model_version)).decoupled
        except RequestError:
            return True


def _headers(context: Context) -> dict[str, str]:
    return _text(context.invocation_metadata() or ())


def _text(metadata: Iterable[Header]) -> dict[str, str]:
    return {key: value for key, value in metadata if isinstance(value, str)}


def _subject(request: Any) -> str:
    """What an admin action concerns: a model or a region."""
    return str(getattr(request, "model_name", "") or getattr(request, "name", ""))


def _abort(context: Context, ended: status.Status, request_id: str) -> Coroutine[Any, Any, NoReturn]:
    return context.abort(ended.code, ended.message, (*ended.trailers, *_id_trailer(request_id)))


def _id_trailer(request_id: str) -> tuple[tuple[str, str], ...]:
    """The trailer that echoes the id; none for an id that a header cannot carry."""
    if not request_id or len(request_id) > NAME_LENGTH or not (request_id.isascii() and request_id.isprintable()):
        return ()
    return (("x-request-id", request_id),)


def _relayed(method: str) -> Any:
    async def handler(self: InferenceService, request: Any, context: Context) -> Any:
        return await self.relay(method, request, context)

    return handler


def _administered(method: str) -> Any:
    async def handler(self: InferenceService, request: Any, context: Context) -> Any:
        return await self.administer(method, request, context)

    return handler


for _method in RELAYED:
    setattr(InferenceService, _method, _relayed(_method))
for _method in (*FANNED_OUT, *OF_THE_ONLY_BACKEND):
    setattr(InferenceService, _method, _administered(_method))
