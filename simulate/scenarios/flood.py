"""Interactive requests while background floods: the first promise of the scheduler."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Periodic, Poisson
from simulate.world.load import Load

# A wait that no batch length divides exactly.
WAIT_S: Final = 0.0501
SERVICE: Final = Service(0.005, 0.001, instances=1, max_batch_size=32)
INTERACTIVE_PER_S: Final = 20.0
FLOOD_PER_S: Final = 3 * SERVICE.rows_per_s()

SCENARIO: Final = Scenario(
    name="flood",
    text="Interactive requests, 20 a second, while background floods at three times the capacity.",
    settings=core_settings(
        (class_settings("interactive", 16, wait_s=WAIT_S), class_settings("background", 1, max_queued=2000))
    ),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=(
        Periodic(load=Load(tenant="people"), per_s=INTERACTIVE_PER_S),
        Poisson(load=Load("background", "batch"), per_s=FLOOD_PER_S),
    ),
    seconds=20.0,
)
