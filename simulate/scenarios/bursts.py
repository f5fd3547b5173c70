"""A tenant that comes in bursts beside one that is steady."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Bursty, Periodic
from simulate.world.load import Load

SERVICE: Final = Service(0.004, 0.001)
CAPACITY_PER_S: Final = SERVICE.rows_per_s()
STEADY_PER_S: Final = 0.3 * CAPACITY_PER_S
# Three times the capacity for a second out of ten: 0.3 of it on average.
BURST_PER_S: Final = 3 * CAPACITY_PER_S
ON_S: Final = 1.0
OFF_S: Final = 9.0

SCENARIO: Final = Scenario(
    name="bursts",
    text="One tenant sends three times the capacity for one second in ten, beside a steady one at 0.3 of it.",
    settings=core_settings((class_settings("interactive"),)),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=(
        Periodic(load=Load(tenant="steady"), per_s=STEADY_PER_S),
        Bursty(load=Load(tenant="bursty"), per_s=BURST_PER_S, on_s=ON_S, off_s=OFF_S, start_s=5.0),
    ),
    seconds=65.0,
)
