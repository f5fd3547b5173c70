"""Two models on one backend whose cores they share: the interactive one against a flood on the other."""

import pytest

from scheduler.core.backends.concurrency import TOLERANCE
from simulate.scenario import class_settings, core_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Periodic, Poisson
from simulate.world.load import Load
from simulate.world.outage import Fault, Outage
from simulate.world.world import World

# Of it 38 ms are left for a batch: 16 rows of minilm.
WAIT_S = 0.0543
WARM_S, UNTIL_S = 5.0, 30.0
CLASSES = (class_settings("interactive", 16, wait_s=WAIT_S), class_settings("background", 1, max_queued=2000))
DIGITS = Service(0.001, 0.0001, 1, 32, 0.05)
FLOOD = ClosedLoop(load=Load("background", "batch", "minilm"), outstanding=300)


def minilm(instances: int) -> Service:
    return Service(0.005, 0.002, instances, 32, 0.05)


def world(*, cores: float = 1.0, instances: int = 3, outages: tuple[Outage, ...] = (), alone: bool = False) -> World:
    models = {"minilm": minilm(instances)} | ({} if alone else {"digits": DIGITS})
    return World(core_settings(CLASSES), [BackendPlan("gpu0", models, cores, outages)])


def flooded(**about: float) -> World:
    sim = world(**about)
    sim.add(Periodic(load=Load(model="digits"), per_s=50), FLOOD)
    sim.run(UNTIL_S)
    return sim


def latencies_s(sim: World, **ticket: object) -> list[float]:
    return sorted(record.latency_s for record in sim.ended(WARM_S, **ticket))


@pytest.mark.parametrize("instances", [1, 3])
@pytest.mark.parametrize("cores", [1.0, 2.0])
def test_a_flood_on_one_model_leaves_the_interactive_one_within_three_times_alone(cores, instances):
    sim = flooded(cores=cores, instances=instances)
    found = latencies_s(sim, model="digits")
    alone_s = DIGITS.a_s + DIGITS.b_s
    assert found[len(found) // 2] <= TOLERANCE * 1.2 * alone_s
    assert found[int(0.99 * len(found))] <= 3 * 1.1 * alone_s
    assert sim.longest_wait_s(WARM_S, model="digits") <= WAIT_S


@pytest.mark.parametrize("cores", [1.0, 3.0])
def test_the_flood_keeps_what_the_interactive_model_leaves(cores):
    sim = flooded(cores=cores)
    per_s = sim.rows(WARM_S, model="minilm") / (UNTIL_S - WARM_S)
    # One batch at a time is the floor, whatever the cores.
    assert per_s >= 0.9 * minilm(1).rows_per_s(16) * (1 - 50 * (DIGITS.a_s + DIGITS.b_s))


def test_where_there_are_cores_for_all_the_limit_opens():
    sim = flooded(cores=8.0)
    assert sim.core.snapshot().backends[0].concurrency.limit >= 3
    assert sim.rows(WARM_S, model="minilm") / (UNTIL_S - WARM_S) >= 0.9 * minilm(3).rows_per_s(16)


def test_on_one_core_the_limit_goes_to_its_floor_and_says_why():
    sim = flooded(cores=1.0)
    concurrency = sim.core.snapshot().backends[0].concurrency
    assert 1 <= concurrency.limit < 2.5
    assert "digits" in concurrency.why
    assert concurrency.moved_at > WARM_S


def test_a_model_by_itself_is_not_limited():
    served = []
    for alone in (True, False):
        sim = world(cores=3.0, alone=alone)
        sim.add(FLOOD)
        sim.run(UNTIL_S)
        served.append(sim.rows(WARM_S))
    assert served[0] == served[1]


def test_the_limit_opens_when_the_interactive_model_has_gone():
    sim = world(cores=1.0)
    sim.add(Poisson(load=Load(model="digits"), per_s=50, stop_s=10.0), FLOOD)
    sim.run(9.0)
    assert sim.core.snapshot().backends[0].concurrency.limit < 3
    sim.run(20.0)
    assert sim.core.snapshot().backends[0].in_flight["minilm"] >= 3


def test_one_stall_does_not_close_the_limit_for_good():
    sim = world(cores=8.0, outages=(Outage(Fault.SLOW, 20.0, 0.5, 100.0),))
    sim.add(Periodic(load=Load(model="digits"), per_s=50), FLOOD)
    sim.run(20.0)
    before = sim.core.snapshot().backends[0].concurrency.limit
    sim.run(50.0)
    assert sim.core.snapshot().backends[0].concurrency.limit >= before - 1 >= 2


def test_on_one_core_the_limit_is_at_its_floor_again_after_stalls():
    """The interactive model never runs alone there: what it would take alone is learned anew."""
    stalls = tuple(Outage(Fault.SLOW, 10.0 + 3 * number, 0.5, 100.0) for number in range(10))
    calm, stalled = flooded(), world(outages=stalls)
    stalled.add(Periodic(load=Load(model="digits"), per_s=50), FLOOD)
    stalled.run(60.0)
    assert stalled.core.snapshot().backends[0].concurrency.limit < TOLERANCE
    after_s = sorted(r.latency_s for r in stalled.ended(50.0, model="digits"))
    before_s = latencies_s(calm, model="digits")
    assert after_s[len(after_s) // 2] < 1.1 * before_s[len(before_s) // 2]
