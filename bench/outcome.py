"""How one generated request ended: a closed list."""

from enum import IntEnum
from typing import Final

import grpc
import grpc.aio

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


class Outcome(IntEnum):
    """The end of a request, as the client sees it."""

    OK = 0
    REFUSED = 1  # RESOURCE_EXHAUSTED: no room
    DEADLINE = 2  # DEADLINE_EXCEEDED, by either side
    ERROR = 3  # any other code
    UNANSWERED = 4  # still outstanding when the grace after the run was over
    UNSENT = 5  # never sent: the generator's bound on outstanding requests was hit


def outcome_of(code: grpc.StatusCode) -> Outcome:
    """The outcome a gRPC status code stands for."""
    if code is grpc.StatusCode.OK:
        return Outcome.OK
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Outcome.REFUSED
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Outcome.DEADLINE
    return Outcome.ERROR


def has_pushback(error: grpc.aio.AioRpcError) -> bool:
    """Whether the trailers tell the client after how many milliseconds (0 or more) to come again."""
    trailers = error.trailing_metadata()
    value = trailers.get(PUSHBACK_KEY) if trailers is not None else None
    text = value.decode() if isinstance(value, bytes) else str(value)
    return text.isdecimal()
