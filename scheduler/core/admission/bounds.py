"""Who may queue: every queue is bounded, in tickets and in bytes, and the bound that is hit is named.

Checked in the order in which a caller can do something about it: what can never fit, then its own rate
(rate.py) and quota, then its class's, then the whole scheduler's, where a more important arrival makes
room at the cost of a lesser one (displacement.py). Only a ticket that is let in takes anything of its
tenant's rate. Bytes are booked at entry and the booked value is given back, so no sum can drift.
"""

from typing import NamedTuple

from scheduler.core.admission.displacement import Newest
from scheduler.core.admission.queue_policy import PolicyQueues
from scheduler.core.outcome import Outcome
from scheduler.core.rate import Charge, RateUnit
from scheduler.core.settings import CoreSettings
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket


class Refusal(NamedTuple):
    """Why a ticket may not queue.

    Attributes:
        outcome: the outcome.
        retry_s: the exact time after which it may; None: nobody knows, or never.
        detail: what was asked and what the bound is, in words.
    """

    outcome: Outcome
    retry_s: float | None = None
    detail: str = ""


class Admission:
    """Counts of what waits, over all models.

    Attributes:
        queued: waiting tickets.
        queue_bytes: their tensors' bytes.
        by_class: waiting tickets by class rank.
        bytes_by_class: their bytes by class rank.
        policies: those of models that have a queue policy.
    """

    __slots__ = (
        "_most_bytes",
        "_newest",
        "_settings",
        "by_class",
        "bytes_by_class",
        "policies",
        "queue_bytes",
        "queued",
    )

    def __init__(self, settings: CoreSettings) -> None:
        self.reconfigure(settings)
        self.queued = 0
        self.queue_bytes = 0
        self.by_class = [0] * len(settings.classes)
        self.bytes_by_class = [0] * len(settings.classes)
        self._newest = [Newest() for _ in settings.classes]
        self.policies = PolicyQueues()

    def reconfigure(self, settings: CoreSettings) -> None:
        """Go on with these bounds, for the same classes."""
        self._settings = settings
        # Of one ticket that may ever queue in a class.
        self._most_bytes = [
            settings.queue_bytes if each.max_queue_bytes is None else min(settings.queue_bytes, each.max_queue_bytes)
            for each in settings.classes
        ]

    def refusal(self, ticket: Ticket, rank: int, tenant: Tenant, *, now: float, cost: float = 1.0) -> Refusal | None:
        """Why the ticket must be refused, or None where it may queue, perhaps in place of lesser ones.

        `cost` is what it takes of its tenant's rate.
        """
        limits, settings = tenant.settings, self._settings.classes[rank]
        queue_bytes, tenant_bytes, class_bytes = ticket.queue_bytes, limits.max_queue_bytes, settings.max_queue_bytes
        if (
            queue_bytes > self._most_bytes[rank]
            or (tenant_bytes is not None and queue_bytes > tenant_bytes)
            or (tenant.counts_rows and ticket.rows > tenant.most_rows(ticket.model))
        ):
            return Refusal(Outcome.TOO_LARGE, detail=self._never_fits(ticket, rank, tenant))
        if tenant.bucket is not None and (wait_s := tenant.bucket.wait_s(cost, now=now)) > 0:
            return Refusal(Outcome.RATE_LIMITED, wait_s, str(tenant.bucket.rate))
        if tenant.queued >= limits.max_queued or (
            tenant_bytes is not None and tenant.queue_bytes + queue_bytes > tenant_bytes
        ):
            return Refusal(Outcome.TENANT_QUEUE_FULL)
        if (
            self.by_class[rank] >= settings.max_queued
            or (class_bytes is not None and self.bytes_by_class[rank] + queue_bytes > class_bytes)
            or not (self.fits(ticket) or self._has_room(ticket, rank))
        ):
            return Refusal(Outcome.QUEUE_FULL)
        return None

    def fits(self, ticket: Ticket) -> bool:
        """Whether the whole queue takes the ticket in without displacing others."""
        settings = self._settings
        return self.queued < settings.max_queued and self.queue_bytes + ticket.queue_bytes <= settings.queue_bytes

    def in_the_way(self, ticket: Ticket, rank: int) -> Ticket | None:
        """The next ticket that must leave the queue before this one may enter; None: it may.

        Ask again after each, and only where `refusal` gave None.
        """
        if self.fits(ticket):
            return None
        for newest in reversed(self._newest[rank + 1 :]):
            displaced = newest.pop()
            if displaced is not None:
                return displaced
        return None

    def book(self, ticket: Ticket, rank: int, tenant: Tenant, *, now: float, cost: float = 1.0) -> None:
        """The ticket takes its place, and what it costs of its tenant's rate."""
        queue_bytes = ticket.queue_bytes
        self.queued += 1
        self.queue_bytes += queue_bytes
        self.by_class[rank] += 1
        self.bytes_by_class[rank] += queue_bytes
        if ticket.policy is not None:
            self.policies.enter(ticket, ticket.policy, now=now)
        if rank:  # nobody displaces the most important class
            self._newest[rank].push(ticket)
        tenant.admitted = True
        if (bucket := tenant.bucket) is not None:
            bucket.take(cost, now=now)
            if bucket.rate.unit is RateUnit.SECONDS:
                ticket.charge = Charge(bucket, cost)

    def release(self, ticket: Ticket, rank: int) -> None:
        """The ticket has left its place."""
        queue_bytes = ticket.queue_bytes
        self.queued -= 1
        self.queue_bytes -= queue_bytes
        self.by_class[rank] -= 1
        self.bytes_by_class[rank] -= queue_bytes
        if ticket.policy is not None:
            self.policies.leave(ticket, ticket.policy)

    def _has_room(self, ticket: Ticket, rank: int) -> bool:
        """Whether the ticket fits into the whole queue, were all lesser tickets to leave it."""
        settings = self._settings
        queued = self.queued - sum(self.by_class[rank + 1 :])
        queue_bytes = self.queue_bytes - sum(self.bytes_by_class[rank + 1 :])
        return queued < settings.max_queued and queue_bytes + ticket.queue_bytes <= settings.queue_bytes

    def _never_fits(self, ticket: Ticket, rank: int, tenant: Tenant) -> str:
        """In words, what makes the ticket one that no amount of waiting would let in."""
        queue_bytes = ticket.queue_bytes
        for bound, whose in (
            (self._settings.queue_bytes, "all waiting requests together"),
            (self._settings.classes[rank].max_queue_bytes, "its class"),
            (tenant.settings.max_queue_bytes, "its tenant"),
        ):
            if bound is not None and queue_bytes > bound:
                return f"{queue_bytes} bytes can never fit into the {bound} that {whose} may queue"
        most_rows = tenant.most_rows(ticket.model)
        return f"{ticket.rows} rows can never fit into the {most_rows} that its tenant may have in flight"
