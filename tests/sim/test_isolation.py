import pytest

from scheduler.core.outcome import Outcome
from tests.sim.oracle import largest_batch_rows, rows_per_s
from tests.sim.world import Load, Server, World
from tests.unit.core.build import class_settings, core_settings, tenant_settings

WARM_S, UNTIL_S = 3.0, 10.0
MAX_BATCH = 32


def flooded(a: float, b: float, instances: int, wait_s: float, *, jitter: float = 0.0, **interactive: object) -> World:
    """Interactive requests, 20 a second, against three times the capacity of background."""
    classes = (class_settings("interactive", 16, wait_s=wait_s), class_settings("background", 1, max_queued=2000))
    sim = World(core_settings(classes=classes), {("gpu0", "m"): Server(a, b, instances, MAX_BATCH, jitter)})
    sim.periodic(Load(**interactive), per_s=20)
    sim.poisson(Load("background", "batch"), per_s=3 * rows_per_s(a, b, MAX_BATCH, instances))
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
    assert per_s >= 0.99 * (rows_per_s(a, b, rows, instances) - lost)


def test_with_jitter_the_wait_stays_within_the_bound_and_the_jitter():
    sim = flooded(0.005, 0.001, 1, 0.0501, jitter=0.2)
    assert sim.longest_wait_s(WARM_S, priority_class="interactive") <= 0.0501 * 1.35


def test_a_flood_on_one_model_does_not_touch_another_in_the_same_scheduler():
    servers = {("gpu0", name): Server(0.005, 0.001) for name in ("m", "n")}
    sim = World(core_settings(), servers)
    sim.backlog(Load("background"), depth=500)
    sim.periodic(Load(model="n"), per_s=50)
    sim.run(10.0)
    assert sim.longest_wait_s(model="n") == 0.0


def test_two_backends_serve_twice_as_much():
    servers = {(name, "m"): Server(0.005, 0.001) for name in ("gpu0", "gpu1")}
    sim = World(core_settings(classes=(class_settings("interactive"),)), servers)
    sim.backlog(Load(), depth=200)
    sim.run(10.0)
    assert sim.rows() / 10 == pytest.approx(rows_per_s(0.005, 0.001, 8, 2), rel=0.02)
    assert sum(servers["gpu0", "m"].batch_rows) == pytest.approx(sum(servers["gpu1", "m"].batch_rows), rel=0.02)


def test_deadlines_expire_at_the_literal_time():
    sim = World(core_settings(), {("gpu0", "m"): Server(0.05, 0.05, max_batch_size=1)})
    sim.poisson(Load(patience_s=0.3), per_s=50, stop=9.0)
    sim.run(10.0)
    expired = [record for record in sim.records.values() if record.outcome is Outcome.DEADLINE_EXPIRED]
    assert len(expired) > 300
    assert all(record.ended_at == record.ticket.deadline for record in expired)
    assert all(record.wait_s < 0.3 + 0.1 for record in sim.ended())
    assert sim.core.idle


def test_pushback_grows_under_overload_and_shrinks_after_it():
    sim = World(core_settings(max_queued=20), {("gpu0", "m"): Server(0.01, 0.001)})
    sim.poisson(Load(), per_s=2000, stop=60.0)
    asked = []
    for second in range(1, 61):
        sim.run(float(second))
        asked.append(sim.core.snapshot().classes[0].pushback_s)
    assert asked == sorted(asked)
    assert (asked[0], asked[-1]) == (1, 32)
    sim.run(200.0)
    sim.core.drain(now=200.0)
    sim.submit(Load())
    assert sim.core.snapshot().classes[0].pushback_s == 1


@pytest.mark.parametrize(("jitter", "within"), [(0.0, 1e-6), (0.1, 0.2)])
def test_the_estimator_finds_a_and_b(jitter, within):
    sim = World(core_settings(), {("gpu0", "m"): Server(0.005, 0.001, 1, 32, jitter)})
    sim.poisson(Load(), per_s=800)
    sim.run(30.0)
    a, b = sim.core._lanes["m"].estimator.line("k").coefficients()
    assert (a, b) == pytest.approx((0.005, 0.001), rel=within)


def test_a_hundred_thousand_tickets_of_thousands_of_tenants_end_once_and_leave_nothing():
    default = tenant_settings(max_in_flight=4, max_queued=50)
    classes = (class_settings("interactive", 16, wait_s=0.05), class_settings("background", max_queued=5000))
    servers = {(backend, model): Server(0.002, 0.0001, 2, 32, 0.2) for backend in "ab" for model in "mn"}
    sim = World(core_settings(classes, default=default), servers)
    for number in range(400):
        load = Load(("interactive", "background")[number % 4 > 0], f"t{number}", "mn"[number % 2], 1 + number % 3)
        sim.poisson(load, per_s=25, stop=10.0)
    sim.run(60.0)
    assert len(sim.records) > 95_000
    assert all(record.outcome is not None for record in sim.records.values())
    assert sum(sim.core.snapshot().ended.values()) == len(sim.records)
    assert sim.core.idle
    assert sim.core.snapshot().tenants == ()
