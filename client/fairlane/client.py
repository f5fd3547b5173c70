"""The sync client."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from fairlane.call import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S, Call, Calls, Defaults, InferOptions, Parameter
from fairlane.channel import LARGEST_MESSAGE_BYTES, channel_options
from fairlane.errors import ClientClosed, Unavailable
from fairlane.model import ModelMetadata, metadata_of
from fairlane.result import InferResult
from fairlane.retry import RetryPolicy
from fairlane.timing import Timing


class Client:
    """A connection to Fairlane (or to Triton itself, which speaks the same protocol).

    Any number of threads may use one client at once, and should: they share its connection and its retry budget.
    Nothing is connected before the first call. Use it in a `with` statement, or `close` it.

    Args:
        address: HOST:PORT of the scheduler.
        tenant: who is asking, for calls that do not say; None sends none.
        priority: class of calls that do not say, such as "interactive" or "background"; None sends none, and the
            server's default class applies.
        api_key: sent as `authorization: Bearer`; None sends none. It travels in the clear without `credentials`.
        timeout_s: seconds a whole call may take, waits and retries included; None: no limit.
        retry: when refused calls are sent again.
        credentials: for TLS (`grpc.ssl_channel_credentials`); None: plain text.
        max_message_bytes: of a request and of an answer; None leaves it to the server's `limits.message_bytes`.
        timing: clock, sleep and chance, for tests.

    Raises:
        ValueError: `max_message_bytes` is below 1, or above what a message can have (2 GiB - 1).
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
        timing: Timing | None = None,
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
        self._timing = timing or Timing()
        self._closed = False
        options = channel_options(self._defaults.max_message_bytes)
        self._channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def infer(  # noqa: PLR0913 - all but model and inputs have a default
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
        """Run a model once and return its outputs.

        A request that the server refused for lack of room, saying when to come again, is sent again then, as is one
        that found no server; never one that may have run, and never one of a sequence.

        Args:
            model: its name.
            inputs: by name, an array of bool, int8-64, uint8-64, float16/32/64, `ml_dtypes.bfloat16`, or of str or
                bytes (sent as BYTES), or what `numpy.asarray` makes such an array of. A model that batches wants a
                leading batch axis.
            version: of the model; "" leaves it to the server.
            outputs: names of the outputs wanted; None: all.
            priority: class, in place of the client's.
            tenant: in place of the client's.
            timeout_s: seconds for the whole call, in place of the client's; `math.inf`: no limit.
            request_id: sent as `x-request-id` and as the request's id, and echoed; None sends none.
            parameters: KServe request parameters, for example Triton's `sequence_id`.

        Raises:
            InvalidRequest: a wrong dtype, shape, input name or class; unsupported dtypes and unprintable names before
                anything is sent.
            MessageTooLarge: the request or its answer has more bytes than the server or `max_message_bytes` allows.
            Overloaded: no room; `retry_after_s` says when to come again.
            DeadlineExceeded: no answer within `timeout_s`.
            ModelNotFound: no such model or version.
            Unavailable: nothing answers at the address, or no backend is ready.
            Unauthenticated: no API key, or an unknown one.
            PermissionDenied: this tenant may not use this model or class.
            Cancelled: by the server, or by `close` in another thread.
            BackendError: the model failed.
            ClientClosed: the client was closed before.
        """
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
        return call.result(self._run(call))

    def live(self) -> bool:
        """Whether a server answers and says it is alive; False where nothing answers.

        Raises:
            FairlaneError: any other than `Unavailable`.
        """
        return self._yes("ServerLive", pb.ServerLiveRequest(), "live")

    def ready(self) -> bool:
        """Whether the server is ready for inference; False where nothing answers.

        Raises:
            FairlaneError: any other than `Unavailable`.
        """
        return self._yes("ServerReady", pb.ServerReadyRequest(), "ready")

    def model_ready(self, model: str, *, version: str = "") -> bool:
        """Whether the model is ready for inference; False where nothing answers.

        Raises:
            FairlaneError: any other than `Unavailable`.
        """
        return self._yes("ModelReady", pb.ModelReadyRequest(name=model, version=version), "ready", model=model)

    def model_metadata(self, model: str, *, version: str = "") -> ModelMetadata:
        """Return the model's inputs and outputs.

        Raises:
            ModelNotFound: no such model or version.
            FairlaneError: any other, as with `infer`.
        """
        request = pb.ModelMetadataRequest(name=model, version=version)
        return metadata_of(self._ask("ModelMetadata", request, model=model))

    def close(self) -> None:
        """Close the connection; calls under way in other threads end with `Cancelled`. Closing twice is harmless."""
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<fairlane.Client {self.address} {'closed' if self._closed else 'open'} {self._defaults}>"

    def _yes(self, rpc: str, request: Any, answer: str, *, model: str | None = None) -> bool:
        try:
            return bool(getattr(self._ask(rpc, request, model=model), answer))
        except Unavailable:
            return False

    def _ask(self, rpc: str, request: Any, *, model: str | None = None) -> Any:
        return self._run(self._calls.ask(rpc, request, model=model, now_s=self._timing.now_s()))

    def _run(self, call: Call) -> Any:
        timing = self._timing
        while True:
            try:
                response = self._send(call, timeout_s=call.begin(now_s=timing.now_s()))
            except grpc.RpcError as raised:
                wait_s = call.failed(raised, now_s=timing.now_s(), chance=timing.chance())
            else:
                call.answered()
                return response
            timing.sleep(wait_s)

    def _send(self, call: Call, *, timeout_s: float | None) -> Any:
        if self._closed:
            raise self._closed_error(call)
        try:
            return getattr(self._stub, call.rpc)(call.request, timeout=timeout_s, metadata=call.metadata)
        except ValueError as error:  # gRPC's answer to a channel that another thread closed since the check above
            if not self._closed:
                raise
            raise self._closed_error(call) from error

    def _closed_error(self, call: Call) -> ClientClosed:
        return ClientClosed(f"the client of {self.address} is closed").about(call.labels)
