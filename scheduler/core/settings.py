"""The operator's settings as the core reads them: frozen records, no file formats, no defaults.

scheduler/config validates a file and builds these; tests build them by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.core.rate import Rate


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """A priority class.

    Attributes:
        name: as in `x-priority`.
        weight: share of service time relative to the other classes while all are backlogged.
        max_queued: waiting tickets of this class, at most.
        wait_s: how long a ticket of this class may wait for batches of its own and lesser classes that
            are already at the backend; bounds the size of those batches. None: no bound.
        max_queue_bytes: bytes of this class's waiting tickets, at most; None: as many as fit in all.
        strict: whether it always goes before every lesser class, whatever the weights.
    """

    name: str
    weight: float
    max_queued: int
    wait_s: float | None
    max_queue_bytes: int | None
    strict: bool


@dataclass(frozen=True, slots=True)
class Cap:
    """What one tenant may have at the backends of one model at a time; None: no bound.

    Attributes:
        max_in_flight: tickets.
        max_rows_in_flight: their rows together.
    """

    max_in_flight: int | None
    max_rows_in_flight: int | None


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What one tenant may ask for and hold.

    Attributes:
        weight: share of its class's service time relative to the other tenants that wait.
        max_in_flight: tickets at the backends over all models, at most; None: any number.
        max_queued: waiting tickets over all classes, at most.
        max_rows_in_flight: rows at the backends over all models, at most; None: any number.
        max_queue_bytes: bytes of its waiting tickets, at most; None: as many as fit in all.
        model_caps: further caps on single models, by name; both hold.
        rate: how much of it is let in a second; None: any number.
    """

    weight: float
    max_in_flight: int | None
    max_queued: int
    max_rows_in_flight: int | None
    max_queue_bytes: int | None
    model_caps: Mapping[str, Cap]
    rate: Rate | None


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """All that the core is configured with.

    Attributes:
        classes: most important first; strict ones before those that are not.
        tenants: settings by tenant name.
        default_tenant: settings of every tenant that has no entry in `tenants`.
        max_tenants: tenants without an entry that are told apart at a time (caps.py).
        max_queued: waiting tickets in all, at most.
        queue_bytes: bytes of waiting tickets' tensors in all, at most.
        hang_s: a batch that has been with an instance for less is not overdue (patience.py).
        model_hang_s: by model, how long its batches may give no sign before they are given up; none: any time.
        model_in_flight: by model, how many of its executions a backend is given at a time; none: as many as it can use.
        outage_s: tickets of a model wait for so long for a backend that was ready and is missed (fleet.py).
        max_sequences: stateful sequences known at a time, at most.
    """

    classes: tuple[ClassSettings, ...]
    tenants: Mapping[str, TenantSettings]
    default_tenant: TenantSettings
    max_tenants: int
    max_queued: int
    queue_bytes: int
    hang_s: float
    outage_s: float
    model_hang_s: Mapping[str, float]
    model_in_flight: Mapping[str, int]
    max_sequences: int

    def for_tenant(self, name: str) -> TenantSettings:
        """The settings that hold for this tenant."""
        return self.tenants.get(name, self.default_tenant)

    def ranks(self) -> dict[str, int]:
        """The classes' ranks by name; 0 is the most important."""
        return {each.name: rank for rank, each in enumerate(self.classes)}
