"""What the core asks of its driver."""

from dataclasses import dataclass

from scheduler.core.outcome import Outcome
from scheduler.core.ticket import Ticket


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send these tickets to the backend as one inference request, then call `complete(batch_id, ...)`."""

    batch_id: int
    backend: str
    tickets: tuple[Ticket, ...]


@dataclass(frozen=True, slots=True)
class Reject:
    """The ticket was refused on arrival.

    Attributes:
        ticket: the ticket.
        outcome: why.
        pushback_s: come again after so many seconds; None: do not.
        detail: what was asked and what the bound is, in words; empty where the outcome says it all.
    """

    ticket: Ticket
    outcome: Outcome
    pushback_s: float | None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Evict:
    """The ticket was accepted and ended without an answer of a backend. `pushback_s` as in Reject."""

    ticket: Ticket
    outcome: Outcome
    pushback_s: float | None


@dataclass(frozen=True, slots=True)
class Abandon:
    """End the call of this batch, as nobody waits for it or it hangs; then call `complete` as for any other."""

    batch_id: int


Event = Dispatch | Reject | Evict | Abandon
