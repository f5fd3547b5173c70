"""One model's waiting tickets: its classes, its retries, and which class is served next."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scheduler.core.caps import Tenant
from scheduler.core.estimate import Estimator
from scheduler.core.flows import ClassQueue, Flow
from scheduler.core.settings import ClassSettings
from scheduler.core.share import VirtualTime
from scheduler.core.ticket import Ticket, TicketState


class Turn(NamedTuple):
    """The ticket that opens the next batch, with its class and its tenant's flow."""

    queue: ClassQueue
    flow: Flow
    ticket: Ticket


class Lane:
    """The queues of one model. Classes share the model's service by weighted virtual time (share.py).

    Attributes:
        classes: queues, most important class first.
        retries: tickets of a batch that failed, each to be tried alone; they still count in flight.
        estimator: what the model's batches cost.
    """

    __slots__ = ("classes", "estimator", "model", "retries", "virtual")

    def __init__(self, model: str, classes: Sequence[ClassSettings]) -> None:
        self.model = model
        self.classes = tuple(ClassQueue(model, settings, rank) for rank, settings in enumerate(classes))
        self.retries: deque[Ticket] = deque()
        self.estimator = Estimator()
        self.virtual = VirtualTime()

    def push(self, ticket: Ticket, rank: int, tenant: Tenant) -> None:
        """Queue a ticket in the class of this rank."""
        queue = self.classes[rank]
        if not queue.queued:
            if not any(other.queued for other in self.classes):
                self.virtual.rest()
            self.virtual.join(queue)
        queue.push(ticket, tenant)

    def next_turn(self) -> Turn | None:
        """Whose turn it is: the class with the least start tag (ties: the more important), then its first flow."""
        best: Turn | None = None
        for queue in self.classes:
            found = queue.first() if queue.queued else None
            if found is None:
                queue.blocked = bool(queue.queued)
                continue
            if queue.blocked:
                # No credit for the time in which all its tenants were at their caps.
                queue.blocked = False
                self.virtual.join(queue)
            if best is None or queue.start < best.queue.start:
                best = Turn(queue, *found)
        return best

    def next_retry(self) -> Ticket | None:
        """The oldest ticket that waits to be tried alone."""
        while self.retries and self.retries[0].state is not TicketState.RETRYING:
            self.retries.popleft()
        return self.retries[0] if self.retries else None

    def waiting(self) -> Iterator[Ticket]:
        """Every ticket that waits here, retries first."""
        yield from (ticket for ticket in self.retries if ticket.state is TicketState.RETRYING)
        for queue in self.classes:
            yield from queue
