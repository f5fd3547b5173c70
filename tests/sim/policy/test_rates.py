"""What a tenant with a rate gets of a flood, against the closed form: its rate, and a burst at first."""

import pytest

from scheduler.core.outcome import Outcome
from scheduler.core.rate import Rate, RateUnit
from simulate.scenario import class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Periodic
from simulate.world.load import Load
from simulate.world.world import World

A, B = 0.002, 0.001
SECONDS = 40.0


def world(rate: Rate) -> World:
    settings = core_settings([class_settings("interactive")], {"metered": tenant_settings(rate=rate)})
    return World(settings, [BackendPlan("gpu0", {"m": Service(A, B, 2)})])


@pytest.mark.parametrize("rows", [1, 4, 32])
def test_a_rate_of_rows_lets_as_many_in_whatever_the_size_of_requests(rows):
    sim = world(Rate(RateUnit.ROWS, 100, 50))
    sim.add(Periodic(load=Load(tenant="metered", rows=rows), per_s=400))
    sim.run(SECONDS)
    assert sim.rows(tenant="metered") == pytest.approx(50 + 100 * SECONDS, abs=max(50, rows))


def test_a_rate_of_requests_lets_more_rows_in_the_larger_they_are():
    sim = world(Rate(RateUnit.REQUESTS, 10, 1))
    sim.add(Periodic(load=Load(tenant="metered", rows=32), per_s=400))
    sim.run(SECONDS)
    assert sim.rows(tenant="metered") == pytest.approx(32 * 10 * SECONDS, rel=0.01)


@pytest.mark.parametrize(("rows", "merge_key"), [(1, "k"), (4, "k"), (4, None), (32, "k")])
def test_a_rate_of_seconds_is_that_part_of_an_instance_whatever_requests_cost(rows, merge_key):
    """Half an instance of two, though others keep both busy and what a request will cost depends on who rides along."""
    sim = world(Rate(RateUnit.SECONDS, 0.5, 0.25))
    sim.add(Periodic(load=Load(tenant="metered", rows=rows, merge_key=merge_key), per_s=1000))
    sim.add(ClosedLoop(load=Load(tenant="free"), outstanding=10))
    sim.run(SECONDS)
    used_s = sim.service_s(tenant="metered")
    assert used_s == pytest.approx(0.25 + 0.5 * SECONDS, rel=0.03)


def test_who_asks_for_less_than_its_rate_is_never_refused():
    sim = world(Rate(RateUnit.ROWS, 100, 4))
    sim.add(Periodic(load=Load(tenant="metered", rows=4), per_s=24))
    sim.run(SECONDS)
    assert not [record for record in sim.records if record.outcome is Outcome.RATE_LIMITED]


def test_who_comes_when_told_to_is_let_in():
    sim = world(Rate(RateUnit.ROWS, 100, 32))
    sim.add(Periodic(load=Load(tenant="metered", rows=32), per_s=50))
    sim.run(SECONDS)
    refused = next(record for record in sim.records if record.outcome is Outcome.RATE_LIMITED)
    again = [
        record.outcome for record in sim.records if record.arrived_at >= refused.arrived_at + refused.pushback_s - 1e-9
    ]
    assert refused.pushback_s == pytest.approx(0.32 - refused.arrived_at)
    assert again[0] is Outcome.COMPLETED
