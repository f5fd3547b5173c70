"""Models whose batches differ in ways that their rows do not tell: calm first, then three times what can be served.

While it is calm, deadlines lie around what a request takes: some cannot be met whatever is done, and what is refused
that could have been is a false refusal (reporting/false_refusals.py). Then two classes and two tenants ask for more
than there is.
"""

from typing import Final

from simulate.scenario import Scenario, class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load
from simulate.world.variation import Bimodal, Cold, Drifting, HeavyTailed, Variation

A_S: Final = 0.005
B_S: Final = 0.001
JITTER: Final = 0.1
# Of the time of an instance that runs one request at a time.
CALM_LOAD: Final = 0.3
CALM_S: Final = 60.0
# From half of what a request of one row takes to five times as long.
CALM_PATIENCE_S: Final = 0.003
CALM_SPREAD_S: Final = 0.027
STORM_LOAD: Final = 3.0
STORM_S: Final = 12.0
STORM_PATIENCE_S: Final = 0.25


def _scenario(name: str, text: str, variation: Variation) -> Scenario:
    service = Service(A_S, B_S, jitter=JITTER, variation=variation)
    calm = Load(tenant="calm", patience_s=CALM_PATIENCE_S, patience_spread_s=CALM_SPREAD_S)
    storm = [
        Poisson(
            load=Load(priority_class, tenant, patience_s=STORM_PATIENCE_S),
            per_s=STORM_LOAD * service.rows_per_s() / 4,
            start_s=CALM_S,
        )
        for priority_class in ("interactive", "background")
        for tenant in ("storm-a", "storm-b")
    ]
    return Scenario(
        name=name,
        text=f"{text}: calm for {CALM_S:.0f} s with deadlines of 3 to 30 ms, then {STORM_LOAD:.0f} times the capacity.",
        settings=core_settings((class_settings("interactive", 16), class_settings("background", 1))),
        backends=(BackendPlan("gpu0", {"m": service}),),
        clients=(Poisson(load=calm, per_s=CALM_LOAD / (variation.mean * (A_S + B_S)), stop_s=CALM_S - 1.0), *storm),
        seconds=CALM_S + STORM_S,
        sampled_tenant="calm",
    )


SCENARIOS: Final = (
    _scenario("bimodal", "Three batches in ten take eight times as long", Bimodal(0.3, 8.0)),
    _scenario("cold-start", "The first two batches take six seconds", Cold(2, 6.0)),
    _scenario("drifting", "Batches take up to five times as long and back within 20 s", Drifting(5.0, 20.0)),
    _scenario("heavy-tailed", "Batches take Pareto times of shape 1.5", HeavyTailed(1.5)),
)
