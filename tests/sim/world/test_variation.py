from random import Random

import pytest

from simulate.world.backend import Service
from simulate.world.variation import Bimodal, Cold, Drifting, HeavyTailed, Variation


@pytest.mark.parametrize("variation", [Bimodal(0.3, 8.0), Drifting(5.0, 10.0), HeavyTailed(3.0)], ids=str)
def test_the_mean_is_that_of_the_factor_and_the_capacity_that_of_the_mean(variation: Variation):
    service, chance = Service(0.1, 0.05, variation=variation), Random(1)
    works_s = [service.work_s(2, number, chance, now=number * 0.001) for number in range(100_000)]
    assert sum(works_s) / len(works_s) == pytest.approx(0.2 * variation.mean, rel=0.02)
    assert service.rows_per_s(2) == pytest.approx(2 / (0.2 * variation.mean))


def test_the_first_runs_are_cold_and_the_others_as_usual():
    service = Service(0.1, 0.05, variation=Cold(2, 6.0))
    works_s = [service.work_s(2, number, Random(1), now=0.0) for number in range(4)]
    assert works_s == pytest.approx([6.0, 6.0, 0.2, 0.2])
    assert service.rows_per_s(2) == pytest.approx(10)


@pytest.mark.parametrize(("now", "factor"), [(0.0, 1.0), (2.5, 3.0), (5.0, 5.0), (7.5, 3.0), (10.0, 1.0)])
def test_a_drift_begins_and_ends_as_usual(now, factor):
    assert Drifting(5.0, 10.0).work_s(1.0, 0, Random(1), now=now) == pytest.approx(factor)
