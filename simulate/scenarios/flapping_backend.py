"""Two backends, one of which goes and comes back, faster than its readiness is probed."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load
from simulate.world.outage import flapping

SERVICE: Final = Service(0.005, 0.001)
# Less than one backend alone can do.
PER_S: Final = 0.7 * SERVICE.rows_per_s()
FIRST_S: Final = 5.0
DOWN_S: Final = 0.4
UP_S: Final = 2.1
TIMES: Final = 10
LAST_S: Final = FIRST_S + TIMES * (DOWN_S + UP_S)

SCENARIO: Final = Scenario(
    name="flapping-backend",
    text="Two backends, one down for 0.4 s every 2.5 s; asked for is 0.7 of what the other can do.",
    settings=core_settings((class_settings("interactive"),)),
    backends=(
        BackendPlan("steady", {"m": SERVICE}),
        BackendPlan("flapping", {"m": SERVICE}, outages=flapping(FIRST_S, down_s=DOWN_S, up_s=UP_S, times=TIMES)),
    ),
    clients=(Poisson(load=Load(), per_s=PER_S),),
    seconds=40.0,
)
