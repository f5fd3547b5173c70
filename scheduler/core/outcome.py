"""How a ticket ends: a closed list. Transport codes are the edge's business (edge/status.py)."""

from enum import Enum
from typing import Final


class Outcome(Enum):
    """The one way in which a ticket ended; the names are the reasons that clients see."""

    # Refused before queueing.
    QUEUE_FULL = "queue_full"
    TENANT_QUEUE_FULL = "tenant_queue_full"
    RATE_LIMITED = "rate_limited"
    TOO_LARGE = "too_large"  # for a bound that time does not widen
    NO_BACKEND = "no_backend"  # refused on arrival, or evicted when the last backend was missed for too long
    DRAINING = "draining"
    TOO_MANY_SEQUENCES = "too_many_sequences"
    # Refused on arrival, or evicted: an earlier step of its stateful sequence is missing.
    SEQUENCE_LOST = "sequence_lost"
    # Evicted after queueing, to make room for a more important arrival.
    DISPLACED = "displaced"
    # Evicted after as long as its model's own configuration lets it wait.
    QUEUE_TIMEOUT = "queue_timeout"
    # Evicted after queueing, or refused on arrival.
    DEADLINE_INFEASIBLE = "deadline_infeasible"
    DEADLINE_EXPIRED = "deadline_expired"
    # Lost at the backend, and not to be tried once more.
    BACKEND_LOST = "backend_lost"
    # Left by the caller, queued or in flight.
    CANCELLED = "cancelled"
    # Ended by the backend.
    COMPLETED = "completed"
    FAILED = "failed"

    # Members are equal where they are the same; Enum's own hash is a call in Python for each look into a dict.
    __hash__ = object.__hash__


# Coming again cannot help, however long the caller waits.
FINAL: Final = frozenset(
    {Outcome.TOO_LARGE, Outcome.SEQUENCE_LOST, Outcome.DEADLINE_INFEASIBLE, Outcome.DEADLINE_EXPIRED}
)


class Verdict(Enum):
    """How a batch ended at the backend."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the backend answered with an error: a request in the batch may be guilty
    GARBLED = "garbled"  # the backend answered, but not with what was asked
    UNAVAILABLE = "unavailable"  # the backend answered that it does not serve this now
    LOST = "lost"  # the backend did not answer: nothing is known of the requests
    UNREACHED = "unreached"  # there was no connection to the backend: nothing was sent
    ABANDONED = "abandoned"  # the call was ended on this side

    __hash__ = object.__hash__
