"""Two models on one backend whose cores they share: the interactive one against a flood on the other."""

import pytest

from scheduler.core.concurrency import TOLERANCE
from tests.sim.oracle import rows_per_s
from tests.sim.world import Load, Server, World
from tests.unit.core.build import class_settings, core_settings

WAIT_S = 0.04
WARM_S, UNTIL_S = 5.0, 30.0
CLASSES = (class_settings("interactive", 16, wait_s=WAIT_S), class_settings("background", 1, max_queued=2000))
DIGITS, MINILM = (0.001, 0.0001), (0.005, 0.002)


def world(*, cores: float = 1.0, instances: int = 3, jitter: float = 0.1) -> World:
    servers = {
        ("gpu0", "digits"): Server(*DIGITS, 1, 32, jitter),
        ("gpu0", "minilm"): Server(*MINILM, instances, 32, jitter),
    }
    return World(core_settings(classes=CLASSES), servers, cores={"gpu0": cores})


def flooded(per_s: float = 50, **about: float) -> World:
    sim = world(**about)
    sim.periodic(Load(model="digits"), per_s=per_s)
    sim.backlog(Load("background", "batch", "minilm"), depth=300)
    sim.run(UNTIL_S)
    return sim


def latencies_s(sim: World, **ticket: object) -> list[float]:
    return sorted(record.ended_at - record.arrived_at for record in sim.ended(WARM_S, **ticket))


@pytest.mark.parametrize("instances", [1, 3])
@pytest.mark.parametrize("cores", [1.0, 2.0])
def test_a_flood_on_one_model_leaves_the_interactive_one_within_three_times_alone(cores, instances):
    sim = flooded(cores=cores, instances=instances)
    found = latencies_s(sim, model="digits")
    alone_s = sum(DIGITS)
    assert found[len(found) // 2] <= TOLERANCE * 1.2 * alone_s
    assert found[int(0.99 * len(found))] <= 3 * 1.1 * alone_s
    assert sim.longest_wait_s(WARM_S, model="digits") <= WAIT_S


@pytest.mark.parametrize("cores", [1.0, 3.0])
def test_the_flood_keeps_what_the_interactive_model_leaves(cores):
    sim = flooded(cores=cores)
    per_s = sim.rows(WARM_S, model="minilm") / (UNTIL_S - WARM_S)
    # One batch at a time is the floor, whatever the cores.
    assert per_s >= 0.9 * rows_per_s(*MINILM, 16, 1) * (1 - 50 * sum(DIGITS))


def test_where_there_are_cores_for_all_the_limit_opens():
    sim = flooded(cores=8.0)
    assert sim.core.snapshot().backends[0].concurrency.limit >= 3
    assert sim.rows(WARM_S, model="minilm") / (UNTIL_S - WARM_S) >= 0.9 * rows_per_s(*MINILM, 16, 3)


def test_on_one_core_the_limit_goes_to_its_floor_and_says_why():
    sim = flooded(cores=1.0)
    concurrency = sim.core.snapshot().backends[0].concurrency
    assert 1 <= concurrency.limit < 2.5
    assert "digits" in concurrency.why
    assert concurrency.moved_at > WARM_S


def test_a_model_by_itself_is_not_limited():
    sim = world(cores=3.0, jitter=0.0)
    sim.backlog(Load("background", "batch", "minilm"), depth=300)
    sim.run(UNTIL_S)
    per_s = sim.rows(WARM_S, model="minilm") / (UNTIL_S - WARM_S)
    alone = World(core_settings(classes=CLASSES), {("gpu0", "minilm"): Server(*MINILM, 3, 32)}, cores={"gpu0": 3.0})
    alone.backlog(Load("background", "batch", "minilm"), depth=300)
    alone.run(UNTIL_S)
    assert sim.rows(WARM_S) == alone.rows(WARM_S)
    assert per_s > 0


def test_the_limit_opens_when_the_interactive_model_has_gone():
    sim = world(cores=1.0)
    sim.poisson(Load(model="digits"), per_s=50, stop=10.0)
    sim.backlog(Load("background", "batch", "minilm"), depth=300)
    sim.run(9.0)
    assert sum(sim.core.snapshot().backends[0].in_flight.values()) <= 3
    sim.run(20.0)
    assert sim.core.snapshot().backends[0].in_flight["minilm"] >= 3


def test_one_stall_does_not_close_the_limit_for_good():
    sim = world(cores=8.0, jitter=0.0)
    sim.periodic(Load(model="digits"), per_s=50)
    sim.backlog(Load("background", "batch", "minilm"), depth=300)
    sim.run(20.0)
    before = sim.core.snapshot().backends[0].concurrency.limit
    digits = sim.servers["gpu0", "digits"]
    sim.at(20.0, lambda: setattr(digits, "a", 1.0))
    sim.at(20.5, lambda: setattr(digits, "a", DIGITS[0]))
    sim.run(40.0)
    assert sim.core.snapshot().backends[0].concurrency.limit >= before - 1 >= 2
