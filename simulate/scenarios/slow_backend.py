"""Two equal backends, one of which slows down for a while."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load
from simulate.world.outage import Fault, Outage

SERVICE: Final = Service(0.005, 0.001)
FACTOR: Final = 10.0
# 0.8 of what one backend and a tenth of the other can do.
PER_S: Final = 0.8 * (1 + 1 / FACTOR) * SERVICE.rows_per_s()
SLOW: Final = Outage(Fault.SLOW, start_s=10.0, length_s=20.0, factor=FACTOR)

SCENARIO: Final = Scenario(
    name="slow-backend",
    text="Two backends, one ten times as slow from second 10 to 30; asked for is 0.8 of what is left.",
    settings=core_settings((class_settings("interactive"),)),
    backends=(
        BackendPlan("steady", {"m": SERVICE}),
        BackendPlan("slowing", {"m": SERVICE}, outages=(SLOW,)),
    ),
    clients=(Poisson(load=Load(), per_s=PER_S),),
    seconds=40.0,
)
