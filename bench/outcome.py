"""How one generated request ended: a closed list."""

from enum import StrEnum
from typing import Final

import grpc
import grpc.aio

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
REASON_KEY: Final = "fairlane-reason"
INFEASIBLE_REASON: Final = "DEADLINE_INFEASIBLE"


class Outcome(StrEnum):
    """The end of a request, as the client sees it."""

    OK = "ok"
    REFUSED = "refused"  # RESOURCE_EXHAUSTED: no room
    INFEASIBLE = "infeasible"  # refused because its deadline could not be met
    DEADLINE = "deadline"  # DEADLINE_EXCEEDED after a wait, by either side
    ERROR = "error"  # any other code
    UNANSWERED = "unanswered"  # still outstanding when the grace after the run was over
    UNSENT = "unsent"  # never sent: the generator's bound on outstanding requests was hit


# A quick no is not a low latency.
TURNED_AWAY: Final = (Outcome.REFUSED, Outcome.INFEASIBLE)


def outcome_of(error: grpc.aio.AioRpcError) -> Outcome:
    """The outcome that an error stands for."""
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Outcome.REFUSED
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Outcome.INFEASIBLE if _trailer(error, REASON_KEY) == INFEASIBLE_REASON else Outcome.DEADLINE
    return Outcome.ERROR


def has_pushback(error: grpc.aio.AioRpcError) -> bool:
    """Whether the trailers tell the client after how many milliseconds (0 or more) to come again."""
    return _trailer(error, PUSHBACK_KEY).isdecimal()


def _trailer(error: grpc.aio.AioRpcError, key: str) -> str:
    trailers = error.trailing_metadata()
    value = trailers.get(key) if trailers is not None else None
    return value.decode() if isinstance(value, bytes) else str(value)
