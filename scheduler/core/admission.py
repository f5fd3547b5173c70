"""Who may queue: every queue is bounded, in tickets and in bytes, and the bound that is hit is named.

Checked in the order in which a caller can do something about it: its own quota first, then its
class's, then the whole scheduler's. Bytes are booked at entry and the booked value is given back, so
the sum cannot drift.
"""

from scheduler.core.caps import Tenants
from scheduler.core.outcome import Outcome
from scheduler.core.settings import CoreSettings
from scheduler.core.ticket import Ticket


class Admission:
    """Counts of what waits, over all models.

    Attributes:
        queued: waiting tickets.
        queue_bytes: their tensors' bytes.
        by_class: waiting tickets by class rank.
    """

    __slots__ = ("_settings", "_tenants", "by_class", "queue_bytes", "queued")

    def __init__(self, settings: CoreSettings, tenants: Tenants) -> None:
        self._settings = settings
        self._tenants = tenants
        self.queued = 0
        self.queue_bytes = 0
        self.by_class = [0] * len(settings.classes)

    def refusal(self, ticket: Ticket, rank: int) -> Outcome | None:
        """The outcome with which the ticket must be refused for lack of room, or None."""
        settings = self._settings
        if self._tenants.queued(ticket.tenant) >= settings.for_tenant(ticket.tenant).max_queued:
            return Outcome.TENANT_QUEUE_FULL
        if (
            self.by_class[rank] >= settings.classes[rank].max_queued
            or self.queued >= settings.max_queued
            or self.queue_bytes + ticket.queue_bytes > settings.queue_bytes
        ):
            return Outcome.QUEUE_FULL
        return None

    def book(self, ticket: Ticket, rank: int) -> None:
        """The ticket takes its place."""
        self.queued += 1
        self.queue_bytes += ticket.queue_bytes
        self.by_class[rank] += 1

    def release(self, ticket: Ticket, rank: int) -> None:
        """The ticket has left its place."""
        self.queued -= 1
        self.queue_bytes -= ticket.queue_bytes
        self.by_class[rank] -= 1
