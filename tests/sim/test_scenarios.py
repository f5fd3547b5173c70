"""The named scenarios against closed forms. What `fairlane simulate NAME` prints is the same run."""

from collections import Counter
from functools import cache
from itertools import groupby

import pytest

from scheduler.core.outcome import Outcome
from simulate.reporting.max_min import max_min_shares
from simulate.scenario import Scenario
from simulate.scenarios import (
    SCENARIOS,
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
    weights,
)
from simulate.world.backend import PROBE_S
from simulate.world.record import Record
from simulate.world.world import World
from tests.sim.oracle import burst_s, jain, largest_batch_rows, most_on_time, sfq_lag_s, turn_wait_s

# How often a run is stopped to look at the bounds.
LOOKS = 100


@cache
def played(name: str) -> World:
    """The scenario's world at its end; on the way the bounds are looked at."""
    scenario = SCENARIOS[name]
    world = scenario.world()
    for _ in scenario.steps(world, LOOKS):
        assert_bounds(world, scenario)
    return world


def assert_bounds(world: World, scenario: Scenario) -> None:
    settings, snapshot = scenario.settings, world.core.snapshot()
    assert snapshot.queued <= settings.max_queued
    assert snapshot.queue_bytes <= settings.queue_bytes
    for seen, asked in zip(snapshot.classes, settings.classes, strict=True):
        assert seen.queued <= asked.max_queued
    for tenant in snapshot.tenants:
        assert tenant.queued <= settings.for_tenant(tenant.name).max_queued
        assert tenant.in_flight <= settings.for_tenant(tenant.name).max_in_flight


def of(world: World, since: float = 0.0, **ticket: object) -> list[Record]:
    """Tickets with these attributes that arrived from then on."""
    return [
        record
        for record in world.records
        if record.arrived_at >= since and all(getattr(record.ticket, name) == value for name, value in ticket.items())
    ]


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[int(part * (len(values) - 1))]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_ticket_ends_exactly_once_and_nothing_is_left(name):
    world = played(name)
    ended = {outcome.name: 0 for outcome in Outcome}
    for record in world.records:
        ended[record.outcome.name] += 1
    snapshot = world.core.snapshot()
    assert ended == snapshot.ended
    assert (snapshot.queued, snapshot.in_flight, snapshot.queue_bytes, snapshot.tenants) == (0, 0, 0, ())
    assert world.core.next_wakeup() is None


def test_a_scenario_repeats_exactly_with_its_seed():
    first, second = (
        [(record.ended_at, record.outcome) for record in SCENARIOS["flood"].play(seed).records] for seed in (3, 3)
    )
    assert first == second


def test_flood_interactive_waits_no_longer_than_wait_s():
    assert played("flood").longest_wait_s(SCENARIOS["flood"].warm_s, tenant="people") <= flood.WAIT_S


def test_flood_costs_background_no_more_than_the_smaller_batches_do():
    world, scenario, service = played("flood"), SCENARIOS["flood"], flood.SERVICE
    rows = largest_batch_rows(service.a_s, service.b_s, flood.WAIT_S, service.max_batch_size)
    # Each interactive request takes the place of a full batch, for as long as it runs by itself.
    lost = flood.INTERACTIVE_PER_S * (service.a_s + service.b_s) * service.rows_per_s(rows)
    answered = world.rows(scenario.warm_s, scenario.seconds)
    assert answered / (scenario.seconds - scenario.warm_s) >= 0.99 * (service.rows_per_s(rows) - lost)


def test_flood_refuses_for_want_of_room_and_says_when_to_come_again():
    refused = [record for record in played("flood").records if not record.completed]
    assert {(record.ticket.tenant, record.outcome) for record in refused} == {("batch", Outcome.QUEUE_FULL)}
    assert all(record.pushback_s > 0 and record.latency_s == 0 for record in refused)


def test_noisy_neighbour_leaves_the_quiet_its_share_and_its_short_waits():
    world, scenario, service = played("noisy-neighbour"), SCENARIOS["noisy-neighbour"], noisy_neighbour.SERVICE
    # Two batches are in flight; then it opens the next or rides in it.
    bound_s = 3 * (service.a_s + service.b_s * service.max_batch_size)
    assert world.longest_wait_s(scenario.warm_s, tenant="quiet") <= bound_s
    demands = {"quiet": noisy_neighbour.QUIET_PER_S, "noisy": noisy_neighbour.NOISY_PER_S}
    for name, per_s in max_min_shares(service.rows_per_s(), demands, dict.fromkeys(demands, 1.0)).items():
        rows = world.rows(scenario.warm_s, scenario.seconds, tenant=name)
        assert rows / (scenario.seconds - scenario.warm_s) == pytest.approx(per_s, rel=0.01)


def test_weights_divide_service_time_within_the_lag_of_the_theorem():
    world, scenario, service = played("weights"), SCENARIOS["weights"], weights.SERVICE
    costs_s = {name: service.a_s + service.b_s * rows for name, rows in weights.ROWS.items()}
    backlogged = ("bronze", "silver", "gold")
    for until in (10.0, 30.0, 100.0):
        normalised = {n: world.service_s(scenario.warm_s, until, tenant=n) / weights.WEIGHTS[n] for n in backlogged}
        for one in backlogged:
            for other in backlogged:
                pair = {name: costs_s[name] for name in (one, other)}
                # The theorem is about what was handed over; each may have the two batches in flight beyond that.
                bound_s = sfq_lag_s(pair, weights.WEIGHTS) + 2 * max(pair[n] / weights.WEIGHTS[n] for n in pair)
                assert abs(normalised[one] - normalised[other]) <= bound_s


def test_weights_give_the_modest_all_it_asks_for():
    world, scenario = played("weights"), SCENARIOS["weights"]
    asked_s = sum(r.service_s for r in of(world, scenario.warm_s, tenant="modest"))
    demands = dict.fromkeys(weights.WEIGHTS, 1e9) | {"modest": asked_s}
    shares = max_min_shares(scenario.seconds - scenario.warm_s, demands, weights.WEIGHTS)
    assert shares["modest"] == asked_s
    for name, share_s in shares.items():
        assert world.service_s(scenario.warm_s, scenario.seconds, tenant=name) == pytest.approx(share_s, rel=0.01)


def test_starvation_background_keeps_its_share_and_its_turns():
    world, scenario, service = played("starvation"), SCENARIOS["starvation"], starvation.SERVICE
    full_s, five_s = (service.a_s + service.b_s * rows for rows in (8, 5))
    shares = [
        world.service_s(scenario.warm_s, scenario.seconds, priority_class=c.name) for c in scenario.settings.classes
    ]
    assert abs(shares[0] / starvation.WEIGHT - shares[1]) <= 2 * (full_s / starvation.WEIGHT + full_s)
    bound_s = turn_wait_s(1, starvation.WEIGHT, turn_s=full_s, lesser_turn_s=five_s)
    assert world.longest_wait_s(scenario.warm_s, tenant="batch") <= bound_s


def test_bursts_do_not_make_the_steady_wait():
    service = bursts.SERVICE
    bound_s = 3 * (service.a_s + service.b_s * service.max_batch_size)
    assert played("bursts").longest_wait_s(SCENARIOS["bursts"].warm_s, tenant="steady") <= bound_s


def test_bursts_are_served_as_fast_as_what_the_steady_leaves():
    world, service = played("bursts"), bursts.SERVICE
    batch_s = service.a_s + service.b_s * service.max_batch_size
    every_s = bursts.ON_S + bursts.OFF_S
    tickets = of(world, tenant="bursty")
    for start_s, burst in groupby(tickets, key=lambda record: (record.arrived_at - 5.0) // every_s * every_s + 5.0):
        records = list(burst)
        fluid_s = burst_s(len(records), bursts.CAPACITY_PER_S, bursts.STEADY_PER_S, bursts.ON_S)
        assert max(record.ended_at for record in records) - start_s <= fluid_s + 3 * batch_s


def test_deadline_storm_tells_everybody_by_the_deadline_and_starts_nothing_after_it():
    with_deadline = [record for record in played("deadline-storm").records if record.ticket.deadline is not None]
    assert len(with_deadline) > 10_000
    for record in with_deadline:
        assert record.ended_at <= record.ticket.deadline
        assert record.started_at is None or record.started_at <= record.ticket.deadline


def test_deadline_storm_answers_in_time_nine_tenths_of_what_anybody_could():
    world, service = played("deadline-storm"), deadline_storm.SERVICE
    in_overload = world.rows(3.0, 12.0, tenant="hurried")
    assert in_overload >= 0.9 * 9.0 * deadline_storm.CAPACITY_PER_S
    storm = of(world, tenant="storm")
    patience_s = (record.ticket.deadline - deadline_storm.STORM_S for record in storm)
    rows = service.max_batch_size
    assert sum(record.completed for record in storm) >= 0.9 * most_on_time(
        patience_s, service.a_s + service.b_s * rows, rows
    )


def test_deadline_storm_tells_most_of_the_hurried_on_arrival():
    in_vain = [record for record in of(played("deadline-storm"), 3.0, tenant="hurried") if not record.completed]
    at_once = [record for record in in_vain if record.ended_at == record.arrived_at]
    assert len(at_once) >= 0.7 * len(in_vain)


def test_slow_backend_gets_so_little_that_most_notice_little():
    world, slow, service = played("slow-backend"), slow_backend.SLOW, slow_backend.SERVICE
    before, during = (
        [record.latency_s for record in world.records if since <= record.arrived_at < until]
        for since, until in ((2.0, slow.start_s - 1.0), (slow.start_s, slow.start_s + slow.length_s))
    )
    assert quantile(during, 0.5) <= 2 * quantile(before, 0.5)
    # Two batches there, one that runs and one that lies ready, and two of the usual length before.
    full_s = service.a_s + service.b_s * service.max_batch_size
    assert max(during) <= (2 * slow_backend.FACTOR + 2) * full_s


def test_slow_backend_loses_nobody():
    world = played("slow-backend")
    assert {record.outcome for record in world.records} == {Outcome.COMPLETED}


def test_slow_backend_is_used_in_full_again_when_it_has_recovered():
    world, slow = played("slow-backend"), slow_backend.SLOW
    recovered_s = slow.start_s + slow.length_s + 3.0
    before = [r.latency_s for r in world.records if 2.0 <= r.arrived_at < slow.start_s - 1.0]
    after = [r.latency_s for r in of(world, recovered_s)]
    assert quantile(after, 0.99) <= 1.5 * quantile(before, 0.99)


def test_flapping_backend_costs_nobody_an_answer():
    assert {record.outcome for record in played("flapping-backend").records} == {Outcome.COMPLETED}


def test_flapping_backend_is_trusted_again_after_its_last_fall():
    world = played("flapping-backend")
    late = of(world, flapping_backend.LAST_S + PROBE_S)
    assert len(late) > 1000
    assert {record.outcome for record in late} == {Outcome.COMPLETED}


def test_cross_model_the_flood_slows_the_interactive_model_as_the_limit_allows():
    world, scenario, digits = played("cross-model"), SCENARIOS["cross-model"], cross_model.DIGITS
    people = of(world, scenario.warm_s, model="digits")
    assert {record.outcome for record in people} == {Outcome.COMPLETED}
    # Processor sharing: beside n batches it takes n + 1 times as long; the limit lets in one, now and then two.
    latencies_s = [record.latency_s / (digits.a_s + digits.b_s) for record in people]
    assert quantile(latencies_s, 0.5) <= 2 + 1e-9
    assert max(latencies_s) <= 3 + 1e-9


def test_cross_model_leaves_no_core_idle():
    world, scenario = played("cross-model"), SCENARIOS["cross-model"]
    served_s = world.service_s(scenario.warm_s, scenario.seconds)
    assert served_s >= 0.95 * (scenario.seconds - scenario.warm_s)


def test_ten_thousand_tenants_are_all_served():
    world, scenario, service = (
        played("ten-thousand-tenants"),
        SCENARIOS["ten-thousand-tenants"],
        ten_thousand_tenants.SERVICE,
    )
    served = {record.ticket.tenant for record in world.ended()}
    assert len(served) == ten_thousand_tenants.TENANTS
    assert {r.outcome for r in world.records} == {Outcome.COMPLETED, Outcome.TENANT_QUEUE_FULL}
    answered = world.rows(scenario.warm_s, scenario.seconds)
    assert answered / (scenario.seconds - scenario.warm_s) >= 0.99 * service.rows_per_s()


def test_ten_thousand_tenants_wait_for_one_round_each_and_get_the_same():
    world, scenario = played("ten-thousand-tenants"), SCENARIOS["ten-thousand-tenants"]
    about = ten_thousand_tenants
    # A ticket waits for its tenant's others and itself, each a round of all tenants.
    bound_s = (about.TENANT_QUEUED + 1) * about.TENANTS / about.SERVICE.rows_per_s()
    assert world.longest_wait_s() <= bound_s
    answered = Counter(record.ticket.tenant for record in world.ended(scenario.warm_s, scenario.seconds))
    assert jain(answered[f"t{number:05}"] for number in range(about.TENANTS)) >= 0.95


def test_diurnal_background_fills_the_valleys():
    world, scenario = played("diurnal"), SCENARIOS["diurnal"]
    served_s = world.service_s(scenario.warm_s, scenario.seconds)
    assert served_s == pytest.approx(scenario.seconds - scenario.warm_s, rel=0.01)
    by_second = {int(record.ended_at) for record in world.ended(priority_class="background")}
    assert by_second >= set(range(int(scenario.warm_s), int(scenario.seconds)))


def test_diurnal_interactive_waits_within_its_bound_and_the_jitter():
    world, scenario = played("diurnal"), SCENARIOS["diurnal"]
    people = of(world, scenario.warm_s, tenant="people")
    assert {record.outcome for record in people} == {Outcome.COMPLETED}
    # Two batches, one after the other, each hardly longer than by three sigma.
    assert quantile([record.wait_s for record in people], 0.99) <= diurnal.WAIT_S * 1.35
