"""From outcomes to gRPC statuses: the code, the pushback and the machine-readable reason. See docs/protocol.md."""

from dataclasses import dataclass
from math import ceil
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from scheduler.core.outcome import Outcome
from scheduler.driver import Refused
from scheduler.errors import RequestError
from scheduler.triton.pool import BackendFailure

DOMAIN: Final = "fairlane"
# A deadline cannot be met by coming again, nor a gap in a sequence filled: gRPC's word for "do not retry".
NO_RETRY: Final = "-1"
# gRPC drops a status whose headers exceed 8 KiB; the message is in them twice.
MESSAGE_LENGTH: Final = 1024

CODES: Final[dict[Outcome, grpc.StatusCode]] = {
    Outcome.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.TENANT_QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
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
    Outcome.RATE_LIMITED: "the tenant asks more often than its rate allows",
    Outcome.DISPLACED: "a more important request took its place in the full queue",
    Outcome.TOO_LARGE: "the request is too large",
    Outcome.NO_BACKEND: "no backend that serves the model is ready",
    Outcome.DRAINING: "the scheduler is shutting down",
    Outcome.BACKEND_LOST: "the backend did not answer",
    Outcome.TOO_MANY_SEQUENCES: "too many sequences are open",
    Outcome.SEQUENCE_LOST: "the sequence is lost",
    Outcome.DEADLINE_INFEASIBLE: "the request could not be served before its deadline",
    Outcome.DEADLINE_EXPIRED: "the deadline passed before the request could be served",
}


@dataclass(frozen=True, slots=True)
class Status:
    """What a call ends with when it does not end well."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def of_refusal(refused: Refused) -> Status:
    """The status of a ticket that the core refused or evicted."""
    ticket = refused.ticket
    code = CODES[refused.outcome]
    what = f"{MESSAGES[refused.outcome]}: {refused.detail}" if refused.detail else MESSAGES[refused.outcome]
    message = f"{what}: class {ticket.priority_class}, tenant {ticket.tenant}, model {ticket.model}"
    about = {"class": ticket.priority_class, "tenant": ticket.tenant, "model": ticket.model}
    return _status(code, message, refused.outcome.name, refused.pushback_s, about)


def of_request_error(error: RequestError) -> Status:
    """The status of a request that was refused before it became a ticket."""
    return _status(error.code, str(error), error.reason, error.pushback_s, {})


def of_backend_failure(failure: BackendFailure) -> Status:
    """The backend's own code and message; nothing is said of coming again, but of a deadline that passed there."""
    if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return _status(failure.code, str(failure), Outcome.DEADLINE_EXPIRED.name, None, {})
    return Status(failure.code, str(failure)[:MESSAGE_LENGTH], ())


def _status(
    code: grpc.StatusCode, message: str, reason: str, pushback_s: float | None, about: dict[str, str]
) -> Status:
    message = message[:MESSAGE_LENGTH]
    details = [_packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=about))]
    trailers: list[tuple[str, str | bytes]] = [("fairlane-reason", reason)]
    if pushback_s is not None:
        # Up: whoever comes when the token of a rate is almost there is refused again.
        pushback_ms = max(1, ceil(pushback_s * 1000))
        trailers.append(("grpc-retry-pushback-ms", str(pushback_ms)))
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(pushback_ms)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED or reason == Outcome.SEQUENCE_LOST.name:
        trailers.append(("grpc-retry-pushback-ms", NO_RETRY))
    status = status_pb2.Status(code=code.value[0], message=message, details=details)
    trailers.append(("grpc-status-details-bin", status.SerializeToString()))
    return Status(code, message, tuple(trailers))


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
