"""What became of one ticket."""

from collections.abc import Callable
from dataclasses import dataclass

from scheduler.core.outcome import Outcome
from scheduler.core.ticket import Ticket


@dataclass(slots=True, eq=False)
class Record:
    """One ticket's story. Times in seconds of the world's clock.

    Attributes:
        ticket: as it was submitted.
        arrived_at: when.
        on_end: called once, when the ticket has ended.
        started_at: when an instance took it (of the last try); None: never.
        ended_at: when its caller was told.
        service_s: its rows' part of its batch's service.
        outcome: how it ended; None: not yet.
        pushback_s: when its caller was told to come again.
    """

    ticket: Ticket
    arrived_at: float
    on_end: Callable[["Record"], None] | None
    started_at: float | None = None
    ended_at: float | None = None
    service_s: float = 0.0
    outcome: Outcome | None = None
    pushback_s: float | None = None

    @property
    def completed(self) -> bool:
        """Whether the ticket was answered."""
        return self.outcome is Outcome.COMPLETED

    @property
    def wait_s(self) -> float:
        """From arrival to an instance, of a ticket that has started."""
        if self.started_at is None:
            raise ValueError(f"ticket {self.ticket.ticket_id} has not started")
        return self.started_at - self.arrived_at

    @property
    def latency_s(self) -> float:
        """From arrival to the end, of a ticket that has ended."""
        if self.ended_at is None:
            raise ValueError(f"ticket {self.ticket.ticket_id} has not ended")
        return self.ended_at - self.arrived_at
