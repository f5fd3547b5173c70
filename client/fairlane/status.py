"""From the status and trailers of a gRPC call to the error a caller sees; the only place that knows the codes."""

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Protocol, cast

import grpc

from fairlane.errors import (
    BackendError,
    Cancelled,
    DeadlineExceeded,
    FairlaneError,
    InvalidRequest,
    Labels,
    ModelNotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
REASON_KEY: Final = "fairlane-reason"
REQUEST_ID_KEY: Final = "x-request-id"

# A code that is not here (UNKNOWN, INTERNAL, UNIMPLEMENTED, ...) is the backend's own, passed on.
_ERRORS: Final[dict[str, type[FairlaneError]]] = {
    error.code: error
    for error in (
        Overloaded,
        DeadlineExceeded,
        InvalidRequest,
        ModelNotFound,
        Unavailable,
        Unauthenticated,
        PermissionDenied,
        Cancelled,
    )
}

# gRPC reports its own size limit under the code of a full queue. It is not overload: the same request fails always.
_TOO_LARGE: Final = re.compile(r"(CLIENT|SERVER)?:? ?(Sent|Received) message larger than max")

# gRPC core has no flag for "no connection was ever made"; these are the texts of its name resolver and its
# connection picker, which end a call before a byte of it is sent.
_NEVER_SENT: Final = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")


class EndedCall(Protocol):
    """What `grpc.RpcError` (as raised by a stub) and `grpc.aio.AioRpcError` have in common."""

    def code(self) -> grpc.StatusCode:
        """Return the status."""

    def details(self) -> str | None:
        """Return the server's message."""

    def initial_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what came before the answer."""

    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what came with the status."""


def error_of(raised: grpc.RpcError, labels: Labels) -> FairlaneError:
    """Translate the exception a stub raised; `labels` is what the caller said of the call."""
    call = cast(EndedCall, raised)
    trailers = _ascii(call.trailing_metadata())
    code = call.code().name
    message = call.details() or f"the call ended with {code} and no message"
    kind = _kind(code, message)
    error = kind(
        message,
        code=code,
        reason=trailers.get(REASON_KEY),
        retry_after_s=_pushback_s(trailers.get(PUSHBACK_KEY)) if kind in {Overloaded, Unavailable} else None,
        labels=replace(labels, request_id=labels.request_id or trailers.get(REQUEST_ID_KEY)),
    )
    if isinstance(error, Unavailable):
        unseen = not trailers and not _ascii(call.initial_metadata())
        error.never_sent = unseen and message.startswith(_NEVER_SENT)
    return error


def _kind(code: str, message: str) -> type[FairlaneError]:
    if code == Overloaded.code and (found := _TOO_LARGE.search(message)):
        # Received by the client is the answer; everything else is the request.
        return BackendError if found[1] == "CLIENT" and found[2] == "Received" else InvalidRequest
    return _ERRORS.get(code, BackendError)


def _ascii(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Leave out binary metadata (`...-bin`): status details are not read here, the trailers say the same."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _pushback_s(value: str | None) -> float | None:
    """Milliseconds as the trailer has them; negative or unreadable means do not come again (gRPC A6)."""
    try:
        pushback_ms = int(value or "")
    except ValueError:
        return None
    return pushback_ms / 1000 if pushback_ms >= 0 else None
