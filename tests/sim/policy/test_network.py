"""A backend behind a network, by closed forms: an instance that takes `s` for a batch gives 1 / s batches a second.

That takes 1 + round trip / s batches under way (the bandwidth-delay product); with two of them it would be
2 / (s + round trip).
"""

import pytest

from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Periodic
from simulate.world.load import Load
from simulate.world.world import World
from tests.unit.core.build import class_settings, core_settings

S, ROUND_TRIP_S = 0.005, 0.020
WARM_S, UNTIL_S = 5.0, 25.0
CLASSES = (class_settings("interactive", 16, wait_s=0.022), class_settings("background", 1))


def world(max_batch_size: int, instances: int = 1, round_trip_s: float = ROUND_TRIP_S) -> World:
    service = Service(S, 0.0, instances=instances, max_batch_size=max_batch_size)
    return World(core_settings(CLASSES), [BackendPlan("far", {"m": service}, round_trip_s=round_trip_s)])


def rate(sim: World, **ticket: object) -> float:
    return sim.rows(WARM_S, UNTIL_S, **ticket) / (UNTIL_S - WARM_S)


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize("round_trip_s", [0.006, 0.020, 0.050])
@pytest.mark.parametrize("max_batch_size", [0, 1])
def test_every_instance_is_kept_busy(max_batch_size, round_trip_s, instances):
    sim = world(max_batch_size, instances, round_trip_s)
    load = Load(priority_class="background", merge_key="k" if max_batch_size else None)
    sim.add(ClosedLoop(load=load, outstanding=64))
    sim.run(UNTIL_S)
    assert rate(sim) >= 0.95 * instances / S


def test_callers_of_a_model_that_merges_wait_for_the_way_and_two_batches():
    sim = world(32)
    sim.add(ClosedLoop(load=Load(priority_class="background", merge_key="k"), outstanding=32))
    sim.run(UNTIL_S)
    assert rate(sim) >= 0.95 * 32 / (ROUND_TRIP_S + 2 * S)


def test_a_person_beside_a_flood_waits_for_no_more_than_what_is_under_way():
    sim = world(1)
    sim.add(
        ClosedLoop(load=Load(priority_class="background", merge_key="k"), outstanding=64),
        Periodic(load=Load(merge_key="k"), per_s=9.7),
    )
    sim.run(UNTIL_S)
    # Until a place is free: an instance ends one every S. What is under way then is 1 + round trip / S, and one more.
    assert sim.longest_wait_s(WARM_S, priority_class="interactive") <= 2 * S + ROUND_TRIP_S
    assert rate(sim, priority_class="background") >= 0.9 / S
