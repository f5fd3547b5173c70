"""The asyncio client: the surface of `fairlane.Client`, with `await`."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from fairlane.call import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, Call, Calls, Defaults, InferOptions, Parameter
from fairlane.channel import LARGEST_MESSAGE_BYTES, channel_options
from fairlane.errors import Cancelled, ClientClosed, Unavailable
from fairlane.model import ModelMetadata, metadata_of
from fairlane.result import InferResult
from fairlane.retry import RetryPolicy
from fairlane.timing import AsyncTiming


class Client:
    """A connection to Fairlane for the tasks of one event loop: that of the first call.

    Arguments and errors are those of `fairlane.Client`. Cancelling the task that awaits a call cancels the call at the
    server. Use it in an `async with` statement, or `await` its `close`.
    """

    def __init__(  # noqa: PLR0913 - all have a default
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        tenant: str | None = None,
        priority: str | None = None,
        api_key: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        max_message_bytes: int | None = None,
        timing: AsyncTiming | None = None,
    ) -> None:
        self.address = address
        self._defaults = Defaults(
            tenant=tenant,
            priority=priority,
            api_key=api_key,
            timeout_s=timeout_s,
            max_message_bytes=LARGEST_MESSAGE_BYTES if max_message_bytes is None else max_message_bytes,
        )
        self._calls = Calls(self._defaults, retry or RetryPolicy())
        self._timing = timing or AsyncTiming()
        self._credentials = credentials
        self._closed = False
        # Made on first use: a grpc.aio channel belongs to the loop that runs when it is made.
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    async def infer(  # noqa: PLR0913 - all but model and inputs have a default
        self,
        model: str,
        inputs: Mapping[str, npt.ArrayLike],
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        priority: str | None = None,
        tenant: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> InferResult:
        """Run a model once and return its outputs; arguments and errors are those of `fairlane.Client.infer`."""
        options = InferOptions(
            version=version,
            outputs=outputs,
            priority=priority,
            tenant=tenant,
            timeout_s=timeout_s,
            request_id=request_id,
            parameters=parameters,
        )
        call = self._calls.infer(model, inputs, options, now_s=self._timing.now_s())
        return call.result(await self._run(call))

    async def live(self) -> bool:
        """Whether a server answers and says it is alive; as `fairlane.Client.live`."""
        return await self._yes("ServerLive", pb.ServerLiveRequest(), "live")

    async def ready(self) -> bool:
        """Whether the server is ready for inference; as `fairlane.Client.ready`."""
        return await self._yes("ServerReady", pb.ServerReadyRequest(), "ready")

    async def model_ready(self, model: str, *, version: str = "") -> bool:
        """Whether the model is ready for inference; as `fairlane.Client.model_ready`."""
        return await self._yes("ModelReady", pb.ModelReadyRequest(name=model, version=version), "ready", model=model)

    async def model_metadata(self, model: str, *, version: str = "") -> ModelMetadata:
        """Return the model's inputs and outputs; as `fairlane.Client.model_metadata`."""
        request = pb.ModelMetadataRequest(name=model, version=version)
        return metadata_of(await self._ask("ModelMetadata", request, model=model))

    async def close(self) -> None:
        """Close the connection; calls under way end with `Cancelled`. Closing twice is harmless."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<fairlane.aio.Client {self.address} {'closed' if self._closed else 'open'} {self._defaults}>"

    async def _yes(self, rpc: str, request: Any, answer: str, *, model: str | None = None) -> bool:
        try:
            return bool(getattr(await self._ask(rpc, request, model=model), answer))
        except Unavailable:
            return False

    async def _ask(self, rpc: str, request: Any, *, model: str | None = None) -> Any:
        return await self._run(self._calls.ask(rpc, request, model=model, now_s=self._timing.now_s()))

    async def _run(self, call: Call) -> Any:
        timing = self._timing
        while True:
            try:
                response = await self._send(call, timeout_s=call.begin(now_s=timing.now_s()))
            except grpc.RpcError as raised:
                wait_s = call.failed(raised, now_s=timing.now_s(), chance=timing.chance())
            else:
                call.answered()
                return response
            await timing.sleep(wait_s)

    async def _send(self, call: Call, *, timeout_s: float | None) -> Any:
        if self._closed:
            raise ClientClosed(f"the client of {self.address} is closed").about(call.labels)
        try:
            return await getattr(self._open(), call.rpc)(call.request, timeout=timeout_s, metadata=call.metadata)
        except asyncio.CancelledError:
            # gRPC also raises this when its channel is closed; then nobody asked this task to stop, and it must not.
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise Cancelled(f"the client of {self.address} was closed during the call").about(
                call.labels, attempts=call.attempts
            ) from None

    def _open(self) -> Any:
        if self._channel is None:
            options = channel_options(self._defaults.max_message_bytes)
            self._channel = (
                grpc.aio.secure_channel(self.address, self._credentials, options)
                if self._credentials
                else grpc.aio.insecure_channel(self.address, options)
            )
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub
