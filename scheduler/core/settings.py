"""The operator's settings as the core reads them: frozen records, no file formats, no defaults.

config.py validates a file and builds these; tests build them by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """A priority class.

    Attributes:
        name: as in `x-priority`.
        weight: share of service time relative to the other classes while all are backlogged.
        max_queued: waiting tickets of this class, at most.
        wait_s: how long a ticket of this class may wait for batches of lesser classes that are
            already at the backend; bounds the size of those batches. None: no bound.
    """

    name: str
    weight: float
    max_queued: int
    wait_s: float | None


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What one tenant may hold at a time.

    Attributes:
        weight: share of its class's service time relative to the other tenants that wait.
        max_in_flight: tickets at the backends, at most.
        max_queued: waiting tickets over all classes, at most.
    """

    weight: float
    max_in_flight: int
    max_queued: int


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """All that the core is configured with.

    Attributes:
        classes: most important first.
        tenants: settings by tenant name.
        default_tenant: settings of every tenant that has no entry in `tenants`.
        max_queued: waiting tickets in all, at most.
        queue_bytes: bytes of waiting tickets' tensors in all, at most.
    """

    classes: tuple[ClassSettings, ...]
    tenants: Mapping[str, TenantSettings]
    default_tenant: TenantSettings
    max_queued: int
    queue_bytes: int

    def for_tenant(self, name: str) -> TenantSettings:
        """The settings that hold for this tenant."""
        return self.tenants.get(name, self.default_tenant)
