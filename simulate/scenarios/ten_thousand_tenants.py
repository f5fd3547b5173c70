"""Ten thousand tenants at once."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load

TENANTS: Final = 10_000
SERVICE: Final = Service(0.002, 0.0002, instances=2, max_batch_size=32)
# One and a half times the capacity, all tenants together.
PER_S: Final = 1.5 * SERVICE.rows_per_s() / TENANTS
TENANT_QUEUED: Final = 2

SCENARIO: Final = Scenario(
    name="ten-thousand-tenants",
    text="Ten thousand tenants, two places in the queue each, ask for 1.5 times the capacity together.",
    settings=core_settings(
        (class_settings("interactive", max_queued=50_000),),
        default=tenant_settings(max_in_flight=2, max_queued=TENANT_QUEUED),
    ),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=tuple(Poisson(load=Load(tenant=f"t{number:05}"), per_s=PER_S) for number in range(TENANTS)),
    seconds=20.0,
)
