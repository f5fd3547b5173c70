"""One call without its I/O: request, metadata, deadline and attempts. Both clients drive the same object."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

from fairlane import tensor
from fairlane.channel import LARGEST_MESSAGE_BYTES
from fairlane.errors import DeadlineExceeded, FairlaneError, InvalidRequest, Labels, MessageTooLarge
from fairlane.result import InferResult
from fairlane.retry import CallRetry, RetryBudget, RetryPolicy
from fairlane.status import REQUEST_ID_KEY, error_of

# Longer than any sane inference, so that a call without a time of its own still ends.
DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_ADDRESS: Final = "127.0.0.1:9001"

PRIORITY_KEY: Final = "x-priority"
TENANT_KEY: Final = "x-tenant-id"
AUTHORIZATION_KEY: Final = "authorization"

_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")  # what gRPC allows in a metadata value

Parameter = bool | int | float | str
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds for a call that does not say otherwise."""

    tenant: str | None = None
    priority: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    max_message_bytes: int = LARGEST_MESSAGE_BYTES

    def __post_init__(self) -> None:
        """Check the bound, so that a bad one fails where it is written."""
        if not 0 < self.max_message_bytes <= LARGEST_MESSAGE_BYTES:
            raise ValueError(
                f"max_message_bytes: expected 1 to {LARGEST_MESSAGE_BYTES} or None, got {self.max_message_bytes}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InferOptions:
    """The keyword arguments of `infer`, as the caller gave them."""

    version: str = ""
    outputs: Sequence[str] | None = None
    priority: str | None = None
    tenant: str | None = None
    timeout_s: float | None = None
    request_id: str | None = None
    parameters: Mapping[str, Parameter] | None = None


class Call:
    """One call to the server: `begin`, send, then `answered` or `failed`; after `failed`, wait and `begin` again."""

    def __init__(self, rpc: str, request: Any, labels: Labels, *, retry: CallRetry, api_key: str | None) -> None:
        self.rpc = rpc
        self.request = request
        self.labels = labels
        self.metadata = _metadata(labels, api_key)
        self._retry = retry

    @property
    def attempts(self) -> int:
        """How often the call was sent so far."""
        return self._retry.attempts

    def begin(self, *, now_s: float) -> float | None:
        """Return the timeout in seconds for the attempt that starts now; None: no limit.

        Raises:
            DeadlineExceeded: if nothing is left of the call's time; nothing is sent then.
        """
        left_s = self._retry.begin(now_s=now_s)
        if left_s is not None and not left_s > 0:
            error = DeadlineExceeded(f"no time left before attempt {self.attempts + 1} of {self.rpc}")
            raise error.about(self.labels, attempts=self.attempts)
        return left_s

    def failed(self, raised: grpc.RpcError, *, now_s: float, chance: float) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            FairlaneError: what the attempt ended with, where it must not or can not be repeated.
        """
        error = error_of(raised, self.labels)
        error.attempts = self.attempts
        wait_s = self._retry.failed(error, now_s=now_s, chance=chance)
        if wait_s is None:
            raise error from raised
        return wait_s

    def answered(self) -> None:
        """Note that the attempt succeeded."""
        self._retry.succeeded()

    def result(self, response: pb.ModelInferResponse) -> InferResult:
        """Decode the answer to an infer call.

        Raises:
            BackendError: if the answer can not be read.
        """
        try:
            outputs = tensor.decode(response)
        except FairlaneError as error:
            error.about(self.labels, attempts=self.attempts)
            raise
        return InferResult(
            model=response.model_name,
            version=response.model_version,
            request_id=response.id or self.labels.request_id,
            outputs=outputs,
            attempts=self.attempts,
        )


class Calls:
    """Makes the calls of one client, which share its defaults, its policy and its retry budget."""

    def __init__(self, defaults: Defaults, policy: RetryPolicy) -> None:
        self._defaults = defaults
        self._policy = policy
        self._budget = RetryBudget(policy)

    def infer(self, model: str, inputs: Mapping[str, npt.ArrayLike], options: InferOptions, *, now_s: float) -> Call:
        """Prepare an inference.

        Raises:
            InvalidRequest: if it can not be sent as it is; see `Client.infer`.
        """
        labels = Labels(
            model=model,
            request_id=options.request_id,
            tenant=_first(options.tenant, self._defaults.tenant),
            priority=_first(options.priority, self._defaults.priority),
        )
        try:
            request = _infer_request(model, inputs, options, self._defaults.max_message_bytes)
        except FairlaneError as error:
            error.about(labels)
            raise
        retry = CallRetry(
            self._policy,
            self._budget,
            deadline_s=self._deadline_s(options.timeout_s, now_s),
            # The model keeps state between the requests of a sequence; a second copy of one would corrupt it.
            repeatable=not (options.parameters or {}).get("sequence_id"),
        )
        return Call("ModelInfer", request, labels, retry=retry, api_key=self._defaults.api_key)

    def ask(self, rpc: str, request: Any, *, model: str | None = None, now_s: float) -> Call:
        """Prepare a question (readiness, metadata): sent once, and without bearing on the retry budget."""
        labels = Labels(model=model, tenant=self._defaults.tenant, priority=self._defaults.priority)
        deadline_s = self._deadline_s(None, now_s)
        retry = CallRetry(self._policy, RetryBudget(self._policy), deadline_s=deadline_s, repeatable=False)
        return Call(rpc, request, labels, retry=retry, api_key=self._defaults.api_key)

    def _deadline_s(self, timeout_s: float | None, now_s: float) -> float | None:
        timeout_s = _first(timeout_s, self._defaults.timeout_s)
        return None if timeout_s is None or timeout_s == math.inf else now_s + timeout_s


def _first(own: Value | None, default: Value | None) -> Value | None:
    return default if own is None else own


def _metadata(labels: Labels, api_key: str | None) -> tuple[tuple[str, str], ...]:
    bearer = None if api_key is None else f"Bearer {api_key}"
    pairs = (
        (PRIORITY_KEY, labels.priority),
        (TENANT_KEY, labels.tenant),
        (REQUEST_ID_KEY, labels.request_id),
        (AUTHORIZATION_KEY, bearer),
    )
    for key, value in pairs:
        if value is not None and not _PRINTABLE.fullmatch(value):
            shown = "a key with other characters" if key == AUTHORIZATION_KEY else repr(value)
            raise InvalidRequest(f"{key}: expected printable ASCII; got {shown}").about(labels)
    return tuple((key, value) for key, value in pairs if value is not None)


def _infer_request(
    model: str, inputs: Mapping[str, npt.ArrayLike], options: InferOptions, most_bytes: int
) -> pb.ModelInferRequest:
    if isinstance(options.outputs, str):
        raise InvalidRequest(f"outputs: expected a list of names; got the one string {options.outputs!r}")
    request = pb.ModelInferRequest(model_name=model, model_version=options.version, id=options.request_id or "")
    for name, value in inputs.items():
        described, raw = tensor.encode(name, value)
        request.inputs.append(described)
        request.raw_input_contents.append(raw)
    for name in options.outputs or ():
        request.outputs.add(name=name)
    for name, parameter in (options.parameters or {}).items():
        _set_parameter(request.parameters[name], name, parameter)
    if (size := request.ByteSize()) > most_bytes:
        bound = "the largest message of the protocol" if most_bytes == LARGEST_MESSAGE_BYTES else "max_message_bytes"
        error = MessageTooLarge(f"request: expected at most {most_bytes} bytes ({bound}); got {size}: send fewer rows")
        error.size_bytes, error.limit_bytes = size, most_bytes
        raise error
    return request


def _set_parameter(into: pb.InferParameter, name: str, value: Parameter) -> None:
    match value:
        case bool():  # before int, which it is too
            into.bool_param = value
        case int() if not -(2**63) <= value < 2**63:
            raise InvalidRequest(f"parameter {name!r}: expected an int of 64 bits, signed; got {value}")
        case int():
            into.int64_param = value
        case float():
            into.double_param = value
        case str():
            into.string_param = value
        case _:
            raise InvalidRequest(f"parameter {name!r}: expected bool, int, float or str; got {type(value).__name__}")
