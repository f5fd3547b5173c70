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
    """End the call of this batch, as nobody waits for it; then call `complete` as for any other."""

    batch_id: int


@dataclass(frozen=True, slots=True)
class Inquire:
    """A batch is overdue: ask its backend about the model, then call `testify(batch_id, ...)`.

    Attributes:
        again: whether it was asked before.
        silent_s: how long nothing has come of the batch.
        usual_s: what it was expected to take.
    """

    batch_id: int
    backend: str
    model: str
    tickets: tuple[Ticket, ...]
    again: bool
    silent_s: float
    usual_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A batch is given up, to be told in the log; its tickets' ends and its call's have events of their own.

    Attributes:
        why: the setting that ends it, or what its backend said.
        silent_s: how long nothing has come of the batch.
        usual_s: what it was expected to take.
    """

    batch_id: int
    backend: str
    model: str
    tickets: tuple[Ticket, ...]
    why: str
    silent_s: float
    usual_s: float


Event = Dispatch | Reject | Evict | Abandon | Inquire | GiveUp
