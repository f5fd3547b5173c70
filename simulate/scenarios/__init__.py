"""The named scenarios, each in a file of its own."""

from typing import Final

from simulate.scenario import Scenario
from simulate.scenarios import (
    bursts,
    cross_model,
    deadline_storm,
    diurnal,
    flapping_backend,
    flood,
    noisy_neighbour,
    slow_backend,
    starvation,
    ten_thousand_tenants,
    uneven,
    weights,
)

_ONE_EACH: Final = (
    flood,
    noisy_neighbour,
    weights,
    starvation,
    bursts,
    deadline_storm,
    slow_backend,
    flapping_backend,
    cross_model,
    ten_thousand_tenants,
    diurnal,
)

SCENARIOS: Final[dict[str, Scenario]] = {
    each.name: each for each in (*(module.SCENARIO for module in _ONE_EACH), *uneven.SCENARIOS)
}
