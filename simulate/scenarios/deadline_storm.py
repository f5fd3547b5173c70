"""Requests with deadlines, several times as many as can be answered in time."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson, Storm
from simulate.world.load import Load

SERVICE: Final = Service(0.005, 0.001)
CAPACITY_PER_S: Final = SERVICE.rows_per_s()
PATIENCE_S: Final = 0.25
STORM_S: Final = 15.0
STORM: Final = 2000
# The storm's deadlines lie between one and three seconds after it.
STORM_PATIENCE_S: Final = 1.0
STORM_SPREAD_S: Final = 2.0

SCENARIO: Final = Scenario(
    name="deadline-storm",
    text="Three times the capacity with deadlines of 250 ms; then 2,000 at once, due in one to three seconds.",
    settings=core_settings((class_settings("interactive"),)),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=(
        Poisson(load=Load(tenant="warm"), per_s=0.5 * CAPACITY_PER_S, stop_s=2.0),
        Poisson(load=Load(tenant="hurried", patience_s=PATIENCE_S), per_s=3 * CAPACITY_PER_S, start_s=2.0, stop_s=12.0),
        Storm(
            load=Load(tenant="storm", patience_s=STORM_PATIENCE_S, patience_spread_s=STORM_SPREAD_S),
            start_s=STORM_S,
            count=STORM,
        ),
    ),
    seconds=20.0,
)
