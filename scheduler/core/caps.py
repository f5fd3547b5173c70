"""How much of a tenant is at the backends: in-flight caps that block nobody else.

A tenant at its cap leaves the queues of flows (flows.py) as soon as it is met there, so it costs the
others nothing; it comes back when one of its tickets ends. The bound is exact: `in_flight` is taken
before a ticket is handed out and given back when its batch has ended, so it never exceeds
`max_in_flight`.
"""

from typing import TYPE_CHECKING

from scheduler.core.settings import CoreSettings, TenantSettings

if TYPE_CHECKING:
    from scheduler.core.flows import Flow


class Tenant:
    """One tenant's counts; alive while any of them is above zero.

    Attributes:
        in_flight: tickets at a backend, or between two tries there.
        queued: tickets waiting in a class queue.
        parked: flows that were met while the tenant was at its cap.
    """

    __slots__ = ("in_flight", "name", "parked", "queued", "settings")

    def __init__(self, name: str, settings: TenantSettings) -> None:
        self.name = name
        self.settings = settings
        self.in_flight = 0
        self.queued = 0
        self.parked: dict[Flow, None] = {}

    @property
    def capped(self) -> bool:
        """Whether the tenant has as much in flight as it may."""
        return self.in_flight >= self.settings.max_in_flight


class Tenants:
    """Every tenant that has something queued or in flight."""

    __slots__ = ("_by_name", "_settings")

    def __init__(self, settings: CoreSettings) -> None:
        self._settings = settings
        self._by_name: dict[str, Tenant] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Tenant:
        """The tenant's counts, made on first use."""
        tenant = self._by_name.get(name)
        if tenant is None:
            tenant = self._by_name[name] = Tenant(name, self._settings.for_tenant(name))
        return tenant

    def queued(self, name: str) -> int:
        """Waiting tickets of the tenant; asking does not make an entry."""
        tenant = self._by_name.get(name)
        return 0 if tenant is None else tenant.queued

    def forget_idle(self, tenant: Tenant) -> None:
        """Drop a tenant that has nothing queued and nothing in flight."""
        if tenant.queued == 0 and tenant.in_flight == 0:
            self._by_name.pop(tenant.name, None)

    def all(self) -> list[Tenant]:
        """The tenants, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]
