"""Weighted shares: tenants with requests of different sizes, one of which asks for less than its share."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Poisson
from simulate.world.load import Load

SERVICE: Final = Service(0.004, 0.001)
WEIGHTS: Final = {"bronze": 1.0, "silver": 2.0, "gold": 4.0, "modest": 4.0}
# Nobody merges, so the service time of a request is its own batch's.
ROWS: Final = {"bronze": 1, "silver": 6, "gold": 2, "modest": 1}
# A seventh of the capacity: less than the 4 / 11 that its weight entitles it to.
MODEST_PER_S: Final = SERVICE.rows_per_s(1) / 7

SCENARIO: Final = Scenario(
    name="weights",
    text="Tenants of weights 1, 2 and 4 with requests of 1, 6 and 2 rows; a fourth asks for less than its share.",
    settings=core_settings(
        (class_settings("interactive"),), {name: tenant_settings(weight) for name, weight in WEIGHTS.items()}
    ),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=(
        *(
            ClosedLoop(load=Load(tenant=name, rows=ROWS[name], merge_key=None), outstanding=30)
            for name in ("bronze", "silver", "gold")
        ),
        Poisson(load=Load(tenant="modest", merge_key=None), per_s=MODEST_PER_S),
    ),
    seconds=100.0,
    warm_s=5.0,
)
