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
    MessageTooLarge,
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
_TOO_LARGE: Final = re.compile(
    r"(?P<side>CLIENT|SERVER)?:? ?(?P<way>Sent|Received) message larger than max"
    r"(?: \((?P<size>\d+) vs\. (?P<limit>\d+)\))?"
)
# So does Fairlane with an answer that its own limit keeps back.
_ANSWER_TOO_LARGE: Final = re.compile(
    r"expected an answer of at most limits\.message_bytes, (?P<limit>\d+), got (?P<size>\d+) bytes"
)

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
    if code == Overloaded.code and (too_large := _too_large(message)) is not None:
        return too_large.about(labels)
    kind = _ERRORS.get(code, BackendError)
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


def _too_large(message: str) -> MessageTooLarge | None:
    """The error of a message that a limit keeps back; None where the server's words are of something else."""
    if found := _ANSWER_TOO_LARGE.search(message):
        what, bound, instead = "answer", "limits.message_bytes of the server", "ask for fewer rows or outputs"
    elif not (found := _TOO_LARGE.search(message)):
        return None
    elif found["way"] == "Received" and found["side"] != "CLIENT":
        what, bound, instead = "request", "limits.message_bytes of the server", "send fewer rows"
    elif found["side"] == "CLIENT":
        what, bound, instead = "answer", "max_message_bytes of this client", "ask for fewer rows or outputs"
    else:
        what, bound, instead = "answer", "the server's limit", "ask for fewer rows or outputs"
    size, limit = found["size"] or "more", found["limit"] or "fewer"
    error = MessageTooLarge(
        f"{what}: expected at most {limit} bytes ({bound}); got {size}: {instead}, or raise the limit",
        code=Overloaded.code,
    )
    error.size_bytes = int(found["size"]) if found["size"] else None
    error.limit_bytes = int(found["limit"]) if found["limit"] else None
    return error


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
