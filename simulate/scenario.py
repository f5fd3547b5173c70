"""A scenario: settings, backends and clients, for so many virtual seconds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scheduler.core.rate import Rate
from scheduler.core.settings import ClassSettings, CoreSettings, TenantSettings
from simulate.world.backend import BackendPlan
from simulate.world.clients import Client
from simulate.world.world import World

# Far longer than any scenario's backlog needs to be served once nobody sends any more.
SETTLE_S = 3600.0


def class_settings(
    name: str, weight: float = 1, *, max_queued: int = 1_000_000, wait_s: float | None = None
) -> ClassSettings:
    """A class as a scenario states it: what it does not state is out of the way."""
    return ClassSettings(
        name=name, weight=weight, max_queued=max_queued, wait_s=wait_s, max_queue_bytes=None, strict=False
    )


def tenant_settings(
    weight: float = 1, *, max_in_flight: int = 1_000_000, max_queued: int = 1_000_000, rate: Rate | None = None
) -> TenantSettings:
    """A tenant as a scenario states it: what it does not state is out of the way."""
    return TenantSettings(
        weight=weight,
        max_in_flight=max_in_flight,
        max_queued=max_queued,
        max_rows_in_flight=None,
        max_queue_bytes=None,
        model_caps={},
        rate=rate,
    )


def core_settings(
    classes: Iterable[ClassSettings],
    tenants: dict[str, TenantSettings] | None = None,
    *,
    default: TenantSettings | None = None,
    max_queued: int = 1_000_000,
    queue_bytes: int = 1 << 40,
    max_tenants: int = 1_000_000,
) -> CoreSettings:
    """The core's settings as a scenario states them: what it does not state is out of the way."""
    return CoreSettings(
        classes=tuple(classes),
        tenants=tenants or {},
        default_tenant=default or tenant_settings(),
        max_tenants=max_tenants,
        max_queued=max_queued,
        queue_bytes=queue_bytes,
        max_sequences=1_000_000,
        hang_s=10.0,
        outage_s=30.0,
        model_hang_s={},
        model_in_flight={},
    )


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is put before the scheduler.

    Attributes:
        name: as in `fairlane simulate NAME`.
        text: what happens in it, in one sentence.
        settings: of the core.
        backends: what serves.
        clients: who sends.
        seconds: virtual, of sending.
        warm_s: virtual seconds at the start that are not measured: the latency lines are learned in them.
        sampled_tenant: whose refusals as infeasible are looked at (reporting/false_refusals.py); empty: nobody's.
    """

    name: str
    text: str
    settings: CoreSettings
    backends: tuple[BackendPlan, ...]
    clients: tuple[Client, ...]
    seconds: float
    warm_s: float = 2.0
    sampled_tenant: str = ""

    def world(self, seed: int = 1, tried: int | None = None) -> World:
        """The world of this scenario before its first second; ticket `tried` is not refused as infeasible."""
        world = World(self.settings, self.backends, seed, tried)
        world.add(*self.clients)
        return world

    def play(self, seed: int = 1) -> World:
        """The world after all its seconds and after what was left has been served.

        Raises:
            RuntimeError: something was never served, or the core never let time pass.
        """
        world = self.world(seed)
        for _ in self.steps(world, 1):
            pass
        return world

    def steps(self, world: World, count: int) -> Iterator[float]:
        """Let the world run in so many steps; yields the part that is done. Raises as `play`."""
        for step in range(1, count + 1):
            world.run(self.seconds * step / count)
            yield step / count
        if not world.settle(SETTLE_S):
            raise RuntimeError(f"scenario {self.name}: after {SETTLE_S} s without arrivals the core is not idle")
