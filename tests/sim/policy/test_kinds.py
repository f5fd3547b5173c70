"""Kinds of work that Triton batches or overlaps by itself, against closed forms.

A closed loop of C callers at a server that runs all that waits as one, in `a` seconds whatever its rows: those that
came while it ran go with the next run, so each caller is answered in every second run, and C / (2 * a) answers a second
leave it, once its callers fall into two groups; C / a if all of them wait for the same run.
"""

import pytest

from scheduler.core.queues.returns import Returns
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Periodic, Poisson
from simulate.world.load import Load
from simulate.world.world import World
from tests.unit.core.build import class_settings, core_settings

A = 0.020
CALLERS = 32
WARM_S, UNTIL_S = 10.0, 30.0
CLASSES = (class_settings("interactive", 16, wait_s=0.022), class_settings("background", 1))
FLAT = Service(A, 0.0, max_batch_size=32)


def world(service: Service) -> World:
    return World(core_settings(CLASSES), [BackendPlan("gpu0", {"m": service})])


def flood(**load: object) -> ClosedLoop:
    return ClosedLoop(load=Load(priority_class="background", **load), outstanding=CALLERS)


def rate(sim: World, since: float = WARM_S, **ticket: object) -> float:
    return sim.rows(since, UNTIL_S, **ticket) / (UNTIL_S - since)


@pytest.mark.parametrize("keys", [{"merge_key": "k"}, {"merge_key": None, "join_key": "j"}])
def test_where_one_row_takes_as_long_as_many_all_callers_are_served_in_every_second_run(keys):
    sim = world(FLAT)
    sim.add(flood(**keys))
    sim.run(UNTIL_S)
    assert rate(sim) >= 0.95 * CALLERS / (2 * A)


def test_tenants_that_must_not_be_merged_here_are_served_together():
    sim = world(FLAT)
    for tenant in "abcdefgh":
        load = Load(priority_class="background", tenant=tenant, merge_key=tenant, join_key="j")
        sim.add(ClosedLoop(load=load, outstanding=CALLERS // 8))
    sim.run(UNTIL_S)
    assert rate(sim) >= 0.95 * CALLERS / (2 * A)


@pytest.mark.parametrize("keys", [{"merge_key": "k"}, {"merge_key": None, "join_key": "j"}])
def test_beside_such_a_flood_a_person_waits_for_one_run_and_costs_it_little(keys):
    sim = world(FLAT)
    sim.add(flood(**keys), Periodic(load=Load(**keys), per_s=9.7))
    sim.run(UNTIL_S)
    # What runs, and a lead in which the next run has left already: it takes no more than a run then.
    assert sim.longest_wait_s(WARM_S, priority_class="interactive") <= 2 * A
    assert rate(sim, priority_class="background") >= 0.9 * CALLERS / (2 * A)


@pytest.mark.parametrize("ways", [4, 16])
def test_a_model_that_answers_many_at_a_time_is_given_as_many(ways):
    latency_s = 0.4
    sim = world(Service(latency_s, 0.0, max_batch_size=0, concurrency=ways))
    sim.add(flood(merge_key=None))
    sim.run(120.0)
    answers = sim.rows(60.0, 120.0)
    # Growth by a half that brings less than 0.3 of it is not kept: at the worst 1 / 1.15 of what is possible.
    assert answers / 60.0 >= ways / latency_s / 1.15


def test_a_model_that_does_as_configured_is_given_one_more_and_no_more():
    sim = world(Service(0.05, 0.0, max_batch_size=0))
    sim.add(flood(merge_key=None), Periodic(load=Load(merge_key=None), per_s=2.3))
    sim.run(60.0)
    waits = sorted(record.wait_s for record in sim.ended(WARM_S, 60.0, priority_class="interactive"))
    # The rest of what runs, and where it has just left what lies ready; one more for the rounds that try more.
    assert waits[int(0.95 * len(waits))] <= 0.05 + 0.0044 + 0.05
    assert waits[-1] <= 4 * 0.05


THINK_S = 0.003


@pytest.mark.parametrize("groups", [(32,), (20, 12), (16, 9, 4, 3)])
def test_callers_that_come_back_at_once_are_served_together(groups):
    """C callers that come back after a think time z are answered in every run: C / (a + z) in place of C / (2 * a)."""
    sim = world(FLAT)
    for place, callers in enumerate(groups):
        load = Load(priority_class="background", merge_key="k")
        sim.add(ClosedLoop(load=load, outstanding=callers, start_s=place * A / len(groups), think_s=THINK_S))
    sim.run(UNTIL_S)
    assert rate(sim) >= 0.95 * CALLERS / (A + THINK_S)


def test_a_person_beside_them_waits_for_one_run_at_most():
    sim = world(FLAT)
    flooding = ClosedLoop(load=Load(priority_class="background", merge_key="k"), outstanding=CALLERS, think_s=THINK_S)
    sim.add(flooding, Periodic(load=Load(merge_key="k"), per_s=9.7))
    sim.run(UNTIL_S)
    assert sim.longest_wait_s(WARM_S, priority_class="interactive") <= 2 * A
    assert rate(sim, priority_class="background") >= 0.9 * CALLERS / (2 * A)


def test_a_quiet_tenant_of_their_class_does_not_wait_for_them():
    sim = world(FLAT)
    flooding = ClosedLoop(load=Load(merge_key="k", tenant="loud"), outstanding=CALLERS, think_s=THINK_S)
    sim.add(flooding, Periodic(load=Load(merge_key="k", tenant="quiet"), per_s=9.7))
    sim.run(UNTIL_S)
    assert sim.longest_wait_s(WARM_S, tenant="quiet") <= 2 * A


@pytest.mark.parametrize("per_s", [20.0, 45.0, 100.0, 400.0, 1200.0])
def test_independent_arrivals_are_served_as_if_nobody_waited_for_anybody(per_s, monkeypatch):
    def waits() -> list[float]:
        sim = world(FLAT)
        sim.add(Poisson(load=Load(merge_key="k"), per_s=per_s))
        sim.run(UNTIL_S)
        return [record.wait_s for record in sim.ended(WARM_S, UNTIL_S)]

    with_returns = waits()
    monkeypatch.setattr(Returns, "part", 0.0)
    without = waits()
    assert sum(with_returns) / len(with_returns) <= 1.01 * sum(without) / len(without)
