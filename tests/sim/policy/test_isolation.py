from random import Random

import pytest

from scheduler.core.outcome import Outcome
from simulate.scenario import class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Periodic, Poisson
from simulate.world.load import Load
from simulate.world.world import World
from tests.sim.oracle import largest_batch_rows

ONE_CLASS = (class_settings("interactive"),)
TWO_CLASSES = (class_settings("interactive", 16, wait_s=0.05), class_settings("background", 1))
WARM_S, UNTIL_S = 3.0, 10.0
MAX_BATCH = 32


def one_model(*args: float, **kwargs: float) -> list[BackendPlan]:
    return [BackendPlan("gpu0", {"m": Service(*args, **kwargs)})]


def flooded(a: float, b: float, instances: int, wait_s: float, *, jitter: float = 0.0, **interactive: object) -> World:
    """Interactive requests, 20 a second, against three times the capacity of background."""
    classes = (class_settings("interactive", 16, wait_s=wait_s), class_settings("background", 1, max_queued=2000))
    service = Service(a, b, instances, MAX_BATCH, jitter)
    sim = World(core_settings(classes), [BackendPlan("gpu0", {"m": service})])
    sim.add(Periodic(load=Load(**interactive), per_s=20))
    sim.add(Poisson(load=Load("background", "batch"), per_s=3 * service.rows_per_s()))
    sim.run(UNTIL_S)
    return sim


@pytest.mark.parametrize("instances", [1, 2, 4])
@pytest.mark.parametrize("interactive", [{}, {"merge_key": "of its own"}], ids=["same key", "own key"])
@pytest.mark.parametrize(("a", "b"), [(0.005, 0.001), (0.001, 0.002), (0.018, 0.0002)])
def test_a_flood_makes_interactive_wait_no_longer_than_wait_s(a, b, instances, interactive):
    wait_s = 0.0501
    sim = flooded(a, b, instances, wait_s, **interactive)
    assert sim.longest_wait_s(WARM_S, priority_class="interactive") <= wait_s


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize(("a", "b"), [(0.005, 0.001), (0.018, 0.0002)])
def test_the_bound_costs_the_flood_no_more_than_the_smaller_batches_do(a, b, instances):
    sim = flooded(a, b, instances, 0.0501)
    rows = largest_batch_rows(a, b, 0.0501, MAX_BATCH)
    per_s = sim.rows(WARM_S) / (UNTIL_S - WARM_S)
    # Each of the 20 interactive requests a second takes the place of a full batch, for as long as it runs by itself.
    lost = 20 * (a + b) * rows / (a + b * rows)
    assert per_s >= 0.99 * (Service(a, b, instances).rows_per_s(rows) - lost)


def test_with_jitter_the_wait_stays_within_the_bound_and_the_jitter():
    sim = flooded(0.005, 0.001, 1, 0.0501, jitter=0.1)
    # Two batches, one after the other, each hardly longer than by three sigma.
    assert sim.longest_wait_s(WARM_S, priority_class="interactive") <= 0.0501 * 1.35


def test_a_flood_on_one_model_does_not_touch_another_that_shares_no_core_with_it():
    sim = World(core_settings(TWO_CLASSES), [BackendPlan("gpu0", dict.fromkeys("mn", Service(0.005, 0.001)))])
    sim.add(ClosedLoop(load=Load("background"), outstanding=500))
    sim.add(Periodic(load=Load(model="n"), per_s=50))
    sim.run(10.0)
    assert sim.longest_wait_s(model="n") == 0.0


def test_two_backends_serve_twice_as_much():
    service = Service(0.005, 0.001)
    sim = World(core_settings(ONE_CLASS), [BackendPlan(name, {"m": service}) for name in ("gpu0", "gpu1")])
    sim.add(ClosedLoop(load=Load(), outstanding=200))
    sim.run(10.0)
    assert sim.rows() / 10 == pytest.approx(2 * service.rows_per_s(), rel=0.02)
    first, second = (sum(backend.batch_rows["m"]) for backend in sim.backends.values())
    assert first == pytest.approx(second, rel=0.02)


@pytest.mark.parametrize("merge_key", ["k", None])
@pytest.mark.parametrize("speed", [2, 5])
def test_unequal_backends_get_work_in_proportion_to_their_speed(speed, merge_key):
    fast = Service(0.005, 0.001)
    slow = Service(0.005 * speed, 0.001 * speed)
    sim = World(core_settings(ONE_CLASS), [BackendPlan("slow", {"m": slow}), BackendPlan("fast", {"m": fast})])
    sim.add(ClosedLoop(load=Load(merge_key=merge_key), outstanding=200))
    sim.run(20.0)
    rows = {name: sum(backend.batch_rows["m"]) for name, backend in sim.backends.items()}
    assert rows["fast"] / rows["slow"] == pytest.approx(speed, rel=0.02)
    per_s = fast.rows_per_s(8 if merge_key else 1) * (1 + 1 / speed)
    assert sim.rows() / 20 == pytest.approx(per_s, rel=0.02)


def test_a_lone_request_goes_to_the_faster_backend():
    plans = [BackendPlan("slow", {"m": Service(0.02, 0.005)}), BackendPlan("fast", {"m": Service(0.005, 0.001)})]
    sim = World(core_settings(ONE_CLASS), plans)
    sim.add(Periodic(load=Load(), per_s=50))
    sim.run(10.0)
    assert len(sim.backends["slow"].batch_rows["m"]) <= 1


def test_deadlines_expire_at_the_literal_time():
    sim = World(core_settings(ONE_CLASS), one_model(0.05, 0.05, max_batch_size=1))
    sim.add(Poisson(load=Load(patience_s=0.3), per_s=50, stop_s=9.0))
    sim.run(10.0)
    expired = [record for record in sim.records if record.outcome is Outcome.DEADLINE_EXPIRED]
    refused = [record for record in sim.records if record.outcome is Outcome.DEADLINE_INFEASIBLE]
    assert len(expired) + len(refused) > 300
    assert all(record.ended_at == record.ticket.deadline for record in expired)
    assert all(record.ended_at < record.ticket.deadline for record in refused)
    assert all(record.wait_s < 0.3 + 0.1 for record in sim.ended())
    assert sim.core.idle


def test_pushback_grows_under_overload_and_shrinks_after_it():
    sim = World(core_settings(ONE_CLASS, max_queued=20), one_model(0.01, 0.001))
    sim.add(Poisson(load=Load(), per_s=2000, stop_s=60.0))
    asked = []
    for second in range(1, 61):
        sim.run(float(second))
        asked.append(sim.core.snapshot().classes[0].pushback_s)
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (1, 32)
    sim.run(200.0)
    sim.core.drain(now=200.0)
    sim.submit(Load(), Random(1))
    assert sim.core.snapshot().classes[0].pushback_s == 1


@pytest.mark.parametrize(("jitter", "within"), [(0.0, 1e-6), (0.05, 0.2)])
def test_the_estimator_finds_a_and_b(jitter, within):
    sim = World(core_settings(ONE_CLASS), one_model(0.005, 0.001, 1, 32, jitter))
    sim.add(Poisson(load=Load(), per_s=800))
    sim.run(30.0)
    (model,) = sim.core.snapshot().models
    assert (model.batch_s, model.row_s) == pytest.approx((0.005, 0.001), rel=within)


def test_a_hundred_thousand_tickets_of_thousands_of_tenants_end_once_and_leave_nothing():
    default = tenant_settings(max_in_flight=4, max_queued=50)
    classes = (class_settings("interactive", 16, wait_s=0.05), class_settings("background", max_queued=5000))
    service = Service(0.002, 0.0001, 2, 32, 0.1)
    sim = World(core_settings(classes, default=default), [BackendPlan(n, dict.fromkeys("mn", service)) for n in "ab"])
    for number in range(400):
        load = Load(("interactive", "background")[number % 4 > 0], f"t{number}", "mn"[number % 2], 1 + number % 3)
        sim.add(Poisson(load=load, per_s=25, stop_s=10.0))
    sim.run(60.0)
    assert len(sim.records) > 95_000
    assert all(record.outcome is not None for record in sim.records)
    assert sum(sim.core.snapshot().ended.values()) == len(sim.records)
    assert sim.core.idle
    assert sim.core.snapshot().tenants == ()
