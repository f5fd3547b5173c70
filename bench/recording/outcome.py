"""How one generated request ended: a closed list."""

from enum import StrEnum
from typing import Final

import grpc

from bench.http2.connection import CallStatus

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


def outcome_of(end: CallStatus) -> Outcome:
    """The outcome that the end of a call stands for."""
    if end.code is grpc.StatusCode.OK:
        return Outcome.OK
    if end.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Outcome.REFUSED
    if end.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Outcome.INFEASIBLE if end.trailers.get(REASON_KEY) == INFEASIBLE_REASON else Outcome.DEADLINE
    return Outcome.ERROR


def has_pushback(end: CallStatus) -> bool:
    """Whether the trailers tell the client after how many milliseconds (0 or more) to come again."""
    return end.trailers.get(PUSHBACK_KEY, "").isdecimal()
