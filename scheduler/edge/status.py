"""From outcomes to gRPC statuses: the code, the pushback and the machine-readable reason.

See docs/reference/protocol.md.
"""

from functools import lru_cache
from math import ceil
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from scheduler.core.outcome import Outcome
from scheduler.driver import Refused
from scheduler.errors import MODEL_NOT_LOADED, RequestError
from scheduler.triton.pool import BackendFailure

DOMAIN: Final = "fairlane"
# Stock clients come again at UNAVAILABLE; where that cannot help, they are told so.
NOT_AGAIN: Final = frozenset({Outcome.SEQUENCE_LOST.name, MODEL_NOT_LOADED})
# A deadline cannot be met by coming again, nor a gap in a sequence filled: gRPC's word for "do not retry".
NO_RETRY: Final = "-1"
# gRPC drops a status whose headers exceed 8 KiB. The message is in them twice: once as base64, and once with every byte
# that is no printable ASCII as three.
MESSAGE_LENGTH: Final = 1024
MESSAGE_BYTES: Final = 3 * MESSAGE_LENGTH
# gRPC keeps it as milliseconds in 32 bits; a rate of one request in a year waits longer.
LONGEST_PUSHBACK_S: Final = 86400.0
# After a refusal by a backend's own queue: batches come and go meanwhile.
QUEUE_PUSHBACK_S: Final = 1.0
# Wordings, and pushbacks in milliseconds; about 2 KB of each at most.
REMEMBERED: Final = 2048

CODES: Final[dict[Outcome, grpc.StatusCode]] = {
    Outcome.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.TENANT_QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    # As Triton says it.
    Outcome.QUEUE_TIMEOUT: grpc.StatusCode.UNAVAILABLE,
    Outcome.DISPLACED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    # Not overload: the same request fails always.
    Outcome.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Outcome.NO_BACKEND: grpc.StatusCode.UNAVAILABLE,
    Outcome.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Outcome.BACKEND_LOST: grpc.StatusCode.UNAVAILABLE,
    Outcome.TOO_MANY_SEQUENCES: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.SEQUENCE_LOST: grpc.StatusCode.UNAVAILABLE,
    Outcome.DEADLINE_INFEASIBLE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Outcome.DEADLINE_EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
}

MESSAGES: Final[dict[Outcome, str]] = {
    Outcome.QUEUE_FULL: "the queue is full",
    Outcome.TENANT_QUEUE_FULL: "the tenant's queue is full",
    Outcome.RATE_LIMITED: "the tenant asks for more than its rate allows",
    Outcome.DISPLACED: "a more important request took its place in the full queue",
    Outcome.QUEUE_TIMEOUT: "the request has waited for as long as its model's configuration lets it",
    Outcome.TOO_LARGE: "the request is too large",
    Outcome.NO_BACKEND: "no backend that serves the model is ready",
    Outcome.DRAINING: "the scheduler is shutting down",
    Outcome.BACKEND_LOST: "the backend did not answer",
    Outcome.TOO_MANY_SEQUENCES: "too many sequences are open",
    Outcome.SEQUENCE_LOST: "the sequence is lost",
    Outcome.DEADLINE_INFEASIBLE: "the request could not be served before its deadline",
    Outcome.DEADLINE_EXPIRED: "the deadline passed before the request could be served",
}


class Status(NamedTuple):
    """What a call ends with when it does not end well."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def of_refusal(refused: Refused) -> Status:
    """The status of a ticket that the core refused or evicted."""
    ticket = refused.ticket
    told = _told(refused.outcome, refused.detail, ticket.priority_class, ticket.tenant, ticket.model)
    return _status(told, refused.pushback_s)


def of_request_error(error: RequestError) -> Status:
    """The status of a request that was refused before it became a ticket."""
    return _status(_worded(error.code, str(error), error.reason, {}), error.pushback_s)


def of_backend_failure(failure: BackendFailure) -> Status:
    """The backend's own code and message; of coming again only what its queue, or a deadline that passed there, say."""
    if failure.outcome is not None:
        code = CODES[failure.outcome]
        return _status(_worded(code, str(failure), failure.outcome.name, {}), QUEUE_PUSHBACK_S)
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _status(_worded(failure.code, str(failure), Outcome.DEADLINE_EXPIRED.name, {}), None)
    return Status(failure.code, _cut(str(failure)), ())


def of_oversized(message: Any, answer: Any, most_bytes: int) -> Status | None:
    """What stands in the place of an answer that is larger than a message may be; None for one that is not.

    Args:
        message: what would be sent.
        answer: the `ModelInferResponse` in it.
        most_bytes: of a message.
    """
    # The exact size takes as long as sending it; what is in a message beside the contents is small.
    if 2 * sum(map(len, answer.raw_output_contents)) <= most_bytes:
        return None
    size_bytes = message.ByteSize()
    if size_bytes <= most_bytes:
        return None
    model = answer.model_name
    told = f"model {model}: expected an answer of at most limits.message_bytes, {most_bytes}, got {size_bytes} bytes"
    return Status(grpc.StatusCode.RESOURCE_EXHAUSTED, _cut(told), (("grpc-retry-pushback-ms", NO_RETRY),))


class _Told(NamedTuple):
    """All of a status but when to come again. `details`: a serialized `google.rpc.Status`."""

    code: grpc.StatusCode
    message: str
    reason: tuple[str, str]
    details: bytes


# In overload the same few refusals are told thousands of times a second.
@lru_cache(maxsize=REMEMBERED)
def _told(outcome: Outcome, detail: str, priority_class: str, tenant: str, model: str) -> _Told:
    what = f"{MESSAGES[outcome]}: {detail}" if detail else MESSAGES[outcome]
    message = f"{what}: class {priority_class}, tenant {tenant}, model {model}"
    about = {"class": priority_class, "tenant": tenant, "model": model}
    return _worded(CODES[outcome], message, outcome.name, about)


def _worded(code: grpc.StatusCode, message: str, reason: str, about: dict[str, str]) -> _Told:
    message = _cut(message)
    info = _packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=about))
    details = status_pb2.Status(code=code.value[0], message=message, details=[info]).SerializeToString()
    return _Told(code, message, ("fairlane-reason", reason), details)


def _cut(message: str) -> str:
    """As much of it as headers can carry."""
    message = message[:MESSAGE_LENGTH]
    if message.isascii() and message.isprintable():
        return message
    left = MESSAGE_BYTES
    for place, character in enumerate(message):
        left -= 1 if " " <= character <= "~" else 3 * len(character.encode(errors="replace"))
        if left < 0:
            return message[:place]
    return message


def _status(told: _Told, pushback_s: float | None) -> Status:
    trailers: tuple[tuple[str, str | bytes], ...] = (told.reason,)
    details = told.details
    if pushback_s is not None:
        # Up: whoever comes when the token of a rate is almost there is refused again.
        pushback, retry_info = _again(max(1, ceil(min(pushback_s, LONGEST_PUSHBACK_S) * 1000)))
        trailers = (told.reason, pushback)
        # Serialized messages merge when they are joined: repeated fields become longer.
        details += retry_info
    elif told.code is grpc.StatusCode.DEADLINE_EXCEEDED or told.reason[1] in NOT_AGAIN:
        trailers = (told.reason, ("grpc-retry-pushback-ms", NO_RETRY))
    return Status(told.code, told.message, (*trailers, ("grpc-status-details-bin", details)))


@lru_cache(maxsize=REMEMBERED)
def _again(pushback_ms: int) -> tuple[tuple[str, str], bytes]:
    """Come again after so long: as a trailer, and as the serialized end of a `google.rpc.Status`."""
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(pushback_ms)
    details = [_packed(error_details_pb2.RetryInfo(retry_delay=delay))]
    return ("grpc-retry-pushback-ms", str(pushback_ms)), status_pb2.Status(details=details).SerializeToString()


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
