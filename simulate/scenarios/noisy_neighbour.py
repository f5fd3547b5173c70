"""Two interactive tenants, one of which asks for several times the capacity."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Periodic, Poisson
from simulate.world.load import Load

SERVICE: Final = Service(0.004, 0.001)
QUIET_PER_S: Final = 0.4 * SERVICE.rows_per_s()
NOISY_PER_S: Final = 5 * SERVICE.rows_per_s()
# What the noisy tenant may keep waiting: without a quota of its own it would fill the class's queue.
NOISY_QUEUED: Final = 4000

SCENARIO: Final = Scenario(
    name="noisy-neighbour",
    text="Two tenants of equal weight: one asks for 0.4 of the capacity, the other for five times all of it.",
    settings=core_settings((class_settings("interactive"),), {"noisy": tenant_settings(max_queued=NOISY_QUEUED)}),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=(
        Periodic(load=Load(tenant="quiet"), per_s=QUIET_PER_S),
        Poisson(load=Load(tenant="noisy"), per_s=NOISY_PER_S),
    ),
    seconds=20.0,
)
