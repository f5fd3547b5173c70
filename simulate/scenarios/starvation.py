"""Background under interactive traffic without end: it trickles, and never starves."""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop
from simulate.world.load import Load

SERVICE: Final = Service(0.004, 0.001)
WEIGHT: Final = 16

SCENARIO: Final = Scenario(
    name="starvation",
    text="Interactive traffic of weight 16 keeps a backlog; background of weight 1 cannot ride along.",
    settings=core_settings((class_settings("interactive", WEIGHT), class_settings("background", 1))),
    backends=(BackendPlan("gpu0", {"m": SERVICE}),),
    clients=(
        ClosedLoop(load=Load(tenant="people"), outstanding=200),
        ClosedLoop(load=Load("background", "batch", merge_key="other"), outstanding=5),
    ),
    seconds=60.0,
    warm_s=5.0,
)
