from itertools import islice, pairwise
from math import inf
from random import Random

import pytest

from scheduler.core.outcome import Outcome
from simulate.scenario import class_settings, core_settings
from simulate.world.backend import PROBE_S, BackendPlan, Service
from simulate.world.clients import Bursty, ClosedLoop, Diurnal, Periodic, Poisson, Storm
from simulate.world.clock import Clock
from simulate.world.load import Load
from simulate.world.outage import Fault, Outage, flapping
from simulate.world.world import World

ONE_CLASS = (class_settings("interactive"),)
LONE = Load(merge_key=None)


def world(*plans: BackendPlan, **settings: int) -> World:
    return World(core_settings(ONE_CLASS, **settings), plans)


def ends(sim: World, **ticket: object) -> list[float]:
    return [record.ended_at for record in sim.ended(**ticket)]


def test_things_due_at_one_instant_happen_in_the_order_in_which_they_were_arranged():
    clock, seen = Clock(), []
    assert clock.next_at() == inf
    for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        clock.at(when, seen.append, name)
    clock.now = clock.next_at()
    clock.run_due()
    assert (seen, clock.next_at()) == (["a", "b"], 2.0)


@pytest.mark.parametrize(
    ("client", "per_s"),
    [
        (Periodic(load=LONE, per_s=10, start_s=3.0), 10),
        (Poisson(load=LONE, per_s=10, start_s=3.0), 10),
        (Bursty(load=LONE, per_s=40, on_s=1.0, off_s=3.0, start_s=3.0), 10),
        (Diurnal(load=LONE, mean_per_s=10, swing=0.9, day_s=20.0, start_s=3.0), 10),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrivals_begin_at_their_start_ascend_and_have_their_mean_rate(client, per_s):
    times = list(islice(client.times(Random(1)), 20_000))
    assert times[0] >= 3.0
    assert all(before <= after for before, after in pairwise(times))
    assert len(times) / (times[-1] - 3.0) == pytest.approx(per_s, rel=0.02)


def test_bursts_leave_their_pauses_empty():
    client = Bursty(load=LONE, per_s=40, on_s=1.0, off_s=3.0)
    assert all(when % 4.0 < 1.0 for when in islice(client.times(Random(1)), 5000))


def test_a_day_is_quiet_at_its_start_and_busy_in_its_middle():
    client = Diurnal(load=LONE, mean_per_s=100, swing=0.9, day_s=20.0)
    assert (client.rate_per_s(0.0), client.rate_per_s(10.0)) == pytest.approx((10.0, 190.0))
    times = list(islice(client.times(Random(1)), 2000))
    quiet, busy = (sum(1 for when in times if from_s <= when < from_s + 2) for from_s in (0.0, 9.0))
    assert busy > 5 * quiet


def test_a_storm_comes_at_one_instant_and_an_open_loop_stops():
    sim = world(BackendPlan("gpu0", {"m": Service(0.01, 0.0)}))
    sim.add(Storm(load=LONE, count=3, start_s=1.0), Periodic(load=LONE, per_s=10, start_s=2.0, stop_s=2.45))
    sim.run(9.0)
    assert [record.arrived_at for record in sim.records] == pytest.approx([1.0] * 3 + [2.0, 2.1, 2.2, 2.3, 2.4])
    assert ends(sim)[:3] == pytest.approx([1.01, 1.02, 1.03])


def test_a_closed_loop_keeps_its_callers_and_comes_back_after_the_pushback():
    sim = world(BackendPlan("gpu0", {"m": Service(1.0, 0.0)}), max_queued=1)
    sim.add(ClosedLoop(load=LONE, outstanding=5))
    sim.run(100.0)
    refused = [record for record in sim.records if record.outcome is Outcome.QUEUE_FULL]
    assert len(ends(sim)) == 100 - 1
    assert {record.arrived_at for record in sim.records} >= {r.ended_at + r.pushback_s for r in refused[:3]}
    assert sum(1 for record in sim.records if record.outcome is None) <= 5


def test_instances_take_batches_in_order_for_a_and_b_seconds():
    sim = world(BackendPlan("gpu0", {"m": Service(0.1, 0.05, instances=2)}))
    sim.add(Storm(load=Load(rows=2, merge_key=None), count=3))
    sim.run(9.0)
    assert ends(sim) == pytest.approx([0.2, 0.2, 0.4])
    assert [record.service_s for record in sim.records] == pytest.approx([0.2] * 3)
    assert sim.backends["gpu0"].batch_rows == {"m": [2, 2, 2]}


def test_jitter_has_the_mean_one():
    service, chance = Service(0.1, 0.05, jitter=0.3), Random(1)
    works_s = [service.work_s(2, number, chance, now=0.0) for number in range(20_000)]
    assert sum(works_s) / 20_000 == pytest.approx(0.2, rel=0.01)


def test_models_that_share_cores_slow_each_other():
    plan = BackendPlan("cpu0", dict.fromkeys("mn", Service(1.0, 0.0)), cores=1.0)
    sim = world(plan)
    sim.add(Storm(load=LONE, count=1), Storm(load=Load(model="n", merge_key=None), count=1, start_s=0.5))
    sim.run(9.0)
    # Alone for half a second, then at half the speed; when the first has ended the second goes on alone.
    assert ends(sim) == pytest.approx([1.5, 2.0])


def test_a_slow_backend_takes_its_factor_and_a_hung_one_goes_on_later():
    outages = (Outage(Fault.SLOW, 0.5, 2.0, factor=4.0), Outage(Fault.HUNG, 10.5, 3.0))
    sim = world(BackendPlan("gpu0", {"m": Service(1.0, 0.0)}, outages=outages))
    sim.add(Storm(load=LONE, count=1), Storm(load=LONE, count=1, start_s=10.0))
    sim.run(20.0)
    assert ends(sim) == pytest.approx([2.5, 14.0])


def test_a_backend_that_goes_down_loses_what_it_holds_and_is_told_of_at_the_next_probe():
    outage = Outage(Fault.DOWN, PROBE_S + 0.5, 2.0)
    sim = world(BackendPlan("gpu0", {"m": Service(0.4, 0.0)}, outages=(outage,)))
    sim.add(Storm(load=LONE, count=1, start_s=outage.start_s - 0.1))
    sim.run(2 * PROBE_S + 0.1)
    (ready,) = (backend.ready for backend in sim.core.snapshot().backends)
    assert not ready
    sim.run(9.0)
    (ready,) = (backend.ready for backend in sim.core.snapshot().backends)
    assert ready
    assert sim.settle(60.0)
    assert all(record.outcome is not None for record in sim.records)


def test_a_call_that_is_ended_runs_on_unheard_and_one_that_lies_ready_is_dropped():
    sim = world(BackendPlan("gpu0", {"m": Service(1.0, 0.0)}))
    sim.add(Storm(load=Load(merge_key=None, patience_s=0.5), count=2), Storm(load=LONE, count=1, start_s=0.6))
    sim.run(9.0)
    left, dropped, served = sim.records
    assert (left.outcome, left.started_at, left.ended_at) == (Outcome.DEADLINE_EXPIRED, 0.0, 0.5)
    assert (dropped.outcome, dropped.started_at) == (Outcome.DEADLINE_EXPIRED, None)
    # The instance is free only when the first batch has run to its end; the second, which lay ready, is dropped.
    assert (served.started_at, served.ended_at) == pytest.approx((1.0, 2.0))


def test_flapping_is_down_and_up_in_turns():
    assert [(each.start_s, each.length_s) for each in flapping(1.0, down_s=0.5, up_s=1.5, times=3)] == [
        (1.0, 0.5), (3.0, 0.5), (5.0, 0.5),
    ]  # fmt: skip


def test_the_same_seed_gives_the_same_run_and_another_client_does_not_change_it():
    def arrivals(seed: int, *more: Poisson) -> list[float]:
        sim = World(core_settings(ONE_CLASS), [BackendPlan("gpu0", {"m": Service(0.01, 0.0, jitter=0.2)})], seed)
        sim.add(Poisson(load=LONE, per_s=20), *more)
        sim.run(10.0)
        return [record.arrived_at for record in sim.records if record.ticket.tenant == "acme"]

    assert arrivals(1) == arrivals(1)
    assert arrivals(1) != arrivals(2)
    assert arrivals(1) == arrivals(1, Poisson(load=Load(tenant="other"), per_s=20))


def test_a_settled_world_takes_no_more_tickets():
    sim = world(BackendPlan("gpu0", {"m": Service(1.0, 0.0)}))
    sim.add(ClosedLoop(load=LONE, outstanding=4))
    sim.run(0.5)
    assert not sim.settle(2.0)
    assert sim.settle(9.0)
    assert len(sim.records) == 4


def test_a_core_that_never_lets_time_pass_is_told_of(monkeypatch):
    sim = world(BackendPlan("gpu0", {"m": Service(1.0, 0.0)}))
    monkeypatch.setattr(sim.core, "next_wakeup", lambda: 2.0)
    with pytest.raises(RuntimeError, match=r"at 2\.0 s to be woken at 2\.0 s"):
        sim.run(9.0)


def test_a_ticket_that_ends_twice_is_told_of():
    sim = world(BackendPlan("gpu0", {"m": Service(1.0, 0.0)}))
    sim.submit(LONE, Random(1))
    sim.run(9.0)
    with pytest.raises(RuntimeError, match="ticket 0 ended as"):
        sim._end(sim.records[0], Outcome.FAILED)


def test_what_has_not_happened_has_no_length():
    sim = world(BackendPlan("gpu0", {"m": Service(1.0, 0.0)}))
    sim.submit(LONE, Random(1))
    with pytest.raises(ValueError, match="has not started"):
        _ = sim.records[0].wait_s
    with pytest.raises(ValueError, match="has not ended"):
        _ = sim.records[0].latency_s
