"""A background model with many instances floods a backend whose core it shares with an interactive one."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Periodic, Poisson
from simulate.world.load import Load

WAIT_S: Final = 0.05
CORES: Final = 1.0
DIGITS: Final = Service(0.008, 0.0005, max_batch_size=32)
MINILM: Final = Service(0.004, 0.002, instances=8, max_batch_size=16)
# Even at a ninth of its speed one is answered before the next comes.
DIGITS_PER_S: Final = 10.0

SCENARIO: Final = Scenario(
    name="cross-model",
    text="Interactive digits, 10 a second, beside a background flood of minilm on the same core.",
    settings=core_settings(
        (class_settings("interactive", 16, wait_s=WAIT_S), class_settings("background", 1, max_queued=2000))
    ),
    backends=(BackendPlan("cpu0", {"digits": DIGITS, "minilm": MINILM}, cores=CORES),),
    clients=(
        Periodic(load=Load(tenant="people", model="digits"), per_s=DIGITS_PER_S),
        Poisson(load=Load("background", "batch", model="minilm"), per_s=3 / MINILM.b_s),
    ),
    seconds=20.0,
)
