"""A day in a minute: interactive traffic rises and falls, and background fills the valleys."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Diurnal
from simulate.world.load import Load

WAIT_S: Final = 0.0501
SERVICE: Final = Service(0.005, 0.001, max_batch_size=32, jitter=0.1)
DAY_S: Final = 60.0
# In full batches the peak is 0.72 of the capacity.
MEAN_PER_S: Final = 0.4 * SERVICE.rows_per_s()
SWING: Final = 0.8

SCENARIO: Final = Scenario(
    name="diurnal",
    text="Interactive traffic from 0.08 to 0.72 of the capacity in a day of a minute; background fills up.",
    settings=core_settings((class_settings("interactive", 16, wait_s=WAIT_S), class_settings("background", 1))),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=(
        Diurnal(load=Load(tenant="people"), mean_per_s=MEAN_PER_S, swing=SWING, day_s=DAY_S),
        ClosedLoop(load=Load("background", "batch"), outstanding=500),
    ),
    seconds=2 * DAY_S,
)
