"""Who a ticket counts for, and how much of a tenant is at the backends: caps that block nobody else.

A tenant at a cap leaves the heaps of flows (flow_heap.py) as soon as it is met there, so it costs the
others nothing; it comes back when one of its tickets ends. The bounds are exact: a ticket's place and
its rows are taken before it is handed out and given back when its batch has ended, so neither ever
exceeds its cap. A ticket with more rows than a cap by itself could never run: it is refused on arrival
(admission.py). A ticket that waits for rows is not overtaken by its own tenant's smaller ones of the
same class and model, or they might keep it waiting for ever.

Names are free where nobody checks them, and fairness by name invites inventing names: each new one
starts at virtual time and is served ahead of everyone who has had his share. So tenants without
settings of their own are told apart only up to `max_tenants` at a time, counting those that were idle
for less than MEMORY_S; whoever comes beyond that shares one place, OTHERS, with the others: one weight,
one cap, one quota, one rate. Inventing names then gains at most max_tenants shares, and at most
max_tenants tickets ahead of their turn in MEMORY_S. Tenants with settings never share. (Docs: decision 5.)
"""

from collections import OrderedDict
from collections.abc import Iterable
from math import inf
from typing import Final, Protocol

from scheduler.core.rate import TokenBucket
from scheduler.core.settings import Cap, CoreSettings, TenantSettings
from scheduler.core.ticket import Ticket

# Who shares a place is called this; a tenant that calls itself so is one of them.
OTHERS: Final = "(others)"
# A tenant that was idle for less is still known: a client that asks once in a minute stays itself.
MEMORY_S: Final = 60.0


class Tickets(Protocol):
    """Tickets that wait, in their order."""

    def head(self) -> Ticket | None:
        """The first; None: none waits."""


class Parked(Protocol):
    """What waits for room under a cap: tickets of a tenant in one lane."""

    @property
    def tickets(self) -> Tickets:
        """Those that wait."""

    @property
    def lane(self) -> str:
        """The lane's name."""

    def unpark(self) -> None:
        """There is room again."""


class Held:
    """What a tenant has at the backends, against a cap.

    Attributes:
        tickets: at a backend, or between two tries there.
        rows: theirs together.
        most_tickets: the cap; infinite where there is none.
        most_rows: the same in rows.
    """

    __slots__ = ("most_rows", "most_tickets", "rows", "tickets")

    def __init__(self, cap: Cap | TenantSettings) -> None:
        self.tickets = 0
        self.rows = 0
        self.most_tickets = inf if cap.max_in_flight is None else cap.max_in_flight
        self.most_rows = inf if cap.max_rows_in_flight is None else cap.max_rows_in_flight

    def blocks(self, rows: int) -> bool:
        """Whether a ticket of so many rows has to wait."""
        return self.tickets >= self.most_tickets or self.rows + rows > self.most_rows


class Tenant:
    """One tenant's counts; alive while any of them is above zero.

    Attributes:
        held: what it has at the backends, or between two tries there.
        queued: tickets waiting in a class queue.
        queue_bytes: their bytes.
        parked: flows that were met while the tenant was at a cap.
        bucket: its rate; None where there is none.
        admitted: whether it had a ticket queued, now or in its last life.
        counts_rows: whether any of its caps is in rows.
    """

    __slots__ = (
        "_of_model",
        "admitted",
        "bucket",
        "counts_rows",
        "held",
        "name",
        "parked",
        "queue_bytes",
        "queued",
        "settings",
    )

    def __init__(
        self, name: str, settings: TenantSettings, bucket: TokenBucket | None = None, *, admitted: bool = False
    ) -> None:
        self.name = name
        self.queued = 0
        self.queue_bytes = 0
        self.parked: dict[Parked, None] = {}
        self.admitted = admitted
        self.reconfigure(settings, bucket, ())

    def reconfigure(self, settings: TenantSettings, bucket: TokenBucket | None, held: Iterable[Ticket]) -> None:
        """Go on with these settings and this rate; `held` are the tickets that have places now."""
        self.settings = settings
        self.bucket = bucket
        self.held = Held(settings)
        self._of_model = {model: Held(cap) for model, cap in settings.model_caps.items()} if settings.model_caps else {}
        self.counts_rows = self.held.most_rows < inf or (
            bool(self._of_model) and any(each.most_rows < inf for each in self._of_model.values())
        )
        for ticket in held:
            self.take(ticket)

    @property
    def in_flight(self) -> int:
        """Tickets at the backends, or between two tries there."""
        return self.held.tickets

    @property
    def idle(self) -> bool:
        """Whether it has nothing queued and nothing in flight."""
        return not self.queued and not self.held.tickets

    def blocks(self, ticket: Ticket) -> bool:
        """Whether a cap keeps the ticket from running now."""
        held = self.held
        if held.tickets >= held.most_tickets or held.rows + ticket.rows > held.most_rows:
            return True
        if not self._of_model:
            return False
        of_model = self._of_model.get(ticket.model)
        return of_model is not None and of_model.blocks(ticket.rows)

    def most_rows(self, model: str) -> float:
        """Rows of one ticket for the model that its caps can ever let run."""
        of_model = self._of_model.get(model)
        return self.held.most_rows if of_model is None else min(self.held.most_rows, of_model.most_rows)

    def take(self, ticket: Ticket) -> None:
        """Book the places of a ticket that goes to a backend."""
        held = self.held
        held.tickets += 1
        held.rows += ticket.rows
        if self._of_model and (of_model := self._of_model.get(ticket.model)) is not None:
            of_model.tickets += 1
            of_model.rows += ticket.rows

    def release(self, ticket: Ticket) -> None:
        """Give back the places of a ticket whose batch has ended."""
        held = self.held
        held.tickets -= 1
        held.rows -= ticket.rows
        if self._of_model and (of_model := self._of_model.get(ticket.model)) is not None:
            of_model.tickets -= 1
            of_model.rows -= ticket.rows

    def unblocked(self) -> list["Parked"]:
        """Remove and return the parked flows whose next ticket may run now."""
        free = [flow for flow in self.parked if (head := flow.tickets.head()) is None or not self.blocks(head)]
        for flow in free:
            del self.parked[flow]
        return free


class Tenants:
    """Every tenant that has something queued or in flight, and the names of those who had of late."""

    __slots__ = ("_buckets", "_by_name", "_known", "_open", "_settings")

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._by_name: dict[str, Tenant] = {}
        self._buckets: dict[str, TokenBucket] = {}
        # Tenants without settings of their own: those alive, and until when idle ones are remembered.
        self._open = 0
        self._known: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str, *, now: float) -> Tenant:
        """Whom a ticket of this tenant that arrives now counts for; made where it has nothing yet.

        Whoever asks for one that stays without tickets gives it to `forget_idle`.
        """
        tenant = self._by_name.get(name)
        if tenant is not None:
            return tenant
        known = self._known.pop(name, None) is not None
        if name not in self._settings.tenants and name != OTHERS:
            if not known and not self._has_place(now):
                return self.find(OTHERS, now=now)
            self._open += 1
        settings = self._settings.for_tenant(name)
        tenant = self._by_name[name] = Tenant(name, settings, self._bucket(name, settings), admitted=known)
        return tenant

    def reconfigure(self, settings: CoreSettings, held: Iterable[Ticket]) -> None:
        """Go on with these settings; whoever waits or is at a backend stays counted.

        Args:
            settings: the new ones.
            held: tickets at the backends, or between two tries there.
        """
        before, self._settings = self._settings, settings
        of_tenant: dict[str, list[Ticket]] = {}
        for ticket in held:
            of_tenant.setdefault(holder_of(ticket).name, []).append(ticket)
        for name in [name for name in self._buckets if before.for_tenant(name) != settings.for_tenant(name)]:
            del self._buckets[name]
        for name in [name for name in self._known if name in settings.tenants]:
            del self._known[name]
        for name, tenant in self._by_name.items():
            own = settings.for_tenant(name)
            tenant.reconfigure(own, self._bucket(name, own), of_tenant.get(name, ()))
        self._open = sum(1 for name in self._by_name if name not in settings.tenants and name != OTHERS)

    def forget_idle(self, tenant: Tenant, *, now: float) -> None:
        """Drop a tenant that has nothing queued and nothing in flight; its name is known for a while."""
        name = tenant.name
        if tenant.queued or tenant.held.tickets or self._by_name.get(name) is not tenant:
            return
        del self._by_name[name]
        if name in self._settings.tenants or name == OTHERS:
            return
        self._open -= 1
        if tenant.admitted:
            until = now + MEMORY_S
            self._known[name] = until if tenant.bucket is None else max(until, tenant.bucket.full_at)
        else:
            self._buckets.pop(name, None)

    def all(self) -> list[Tenant]:
        """The tenants, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def _has_place(self, now: float) -> bool:
        """Whether one more tenant without settings is told apart."""
        while self._known and next(iter(self._known.values())) <= now:
            self._buckets.pop(self._known.popitem(last=False)[0], None)
        return self._open + len(self._known) < self._settings.max_tenants

    def _bucket(self, name: str, settings: TenantSettings) -> TokenBucket | None:
        return None if settings.rate is None else self._buckets.setdefault(name, TokenBucket(settings.rate))


def holder_of(ticket: Ticket) -> Tenant:
    """Whom a queued ticket counts for."""
    assert isinstance(ticket.holder, Tenant)
    return ticket.holder
