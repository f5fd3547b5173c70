"""Refusing what cannot end in time: how often it is wrong, and what it is good for."""

import pytest

from scheduler.core.outcome import Outcome
from simulate.scenario import class_settings, core_settings, tenant_settings
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load
from simulate.world.record import Record
from simulate.world.world import World

WARM_S, UNTIL_S = 1.0, 2.5
PATIENCE_S = 0.25
SAMPLE = 48
# Of what is refused on arrival in overload, at most this part may have been refused though there was room: had it alone
# been let in, one more would have ended in time in all.
FALSE_REFUSALS = 0.15
# Of it, at most this part may be what would have ended in time itself, had it alone been let in: most take another's
# place, since in overload none is to spare.
PLACES_TAKEN = 0.85
# Of those not served, at least this part is told at once.
TOLD_AT_ONCE = 0.85
CLASSES = (class_settings("interactive", 16), class_settings("background", 1))
WEIGHTS = {"a": 1, "b": 1, "c": 3}


def overloaded(jitter: float, tried: int | None = None) -> World:
    """Three tenants in two classes ask for three times the capacity, steadily, each request with a deadline."""
    service = Service(0.005, 0.001, 1, 8, jitter)
    settings = core_settings(CLASSES, {name: tenant_settings(weight) for name, weight in WEIGHTS.items()})
    world = World(settings, [BackendPlan("gpu0", {"m": service})], tried=tried)
    for name in WEIGHTS:
        for priority_class in ("interactive", "background"):
            load = Load(priority_class, name, patience_s=PATIENCE_S)
            world.add(Poisson(load=load, per_s=service.rows_per_s() / 2))

    world.run(UNTIL_S)
    return world


def outcomes(world: World, outcome: Outcome) -> list[Record]:
    return [record for record in world.records if record.outcome is outcome]


def in_time(world: World) -> list[Record]:
    return [record for record in outcomes(world, Outcome.COMPLETED) if record.ended_at <= record.ticket.deadline]


def test_what_is_refused_on_arrival_finds_no_room():
    """Each of a sample of the refused is let in, alone, into the same world."""
    world = overloaded(0.1)
    served = len(in_time(world))
    refused = [
        record
        for record in outcomes(world, Outcome.DEADLINE_INFEASIBLE)
        if record.arrived_at > WARM_S
        and record.arrived_at + PATIENCE_S < UNTIL_S
        and record.ended_at == record.arrived_at
    ]
    assert len(refused) > 100
    sample = refused[:: len(refused) // SAMPLE]
    places_taken = false_refusals = 0
    for record in sample:
        number = record.ticket.ticket_id
        with_it = in_time(overloaded(0.1, number))
        places_taken += any(other.ticket.ticket_id == number for other in with_it)
        false_refusals += len(with_it) > served
    print(
        f"of {len(sample)} refused {places_taken} would have ended in time, {false_refusals} of them in nobody's place"
    )
    assert places_taken <= PLACES_TAKEN * len(sample)
    assert false_refusals <= FALSE_REFUSALS * len(sample)


def test_in_overload_capacity_goes_to_answers_that_come_in_time():
    world = overloaded(0.1)
    served = [record for record in in_time(world) if record.ended_at > WARM_S]
    capacity = Service(0.005, 0.001, 1, 8).rows_per_s() * (UNTIL_S - WARM_S)
    assert len(served) >= 0.9 * capacity


def test_most_of_those_that_cannot_be_served_are_told_at_once():
    world = overloaded(0.1)
    in_vain = outcomes(world, Outcome.DEADLINE_INFEASIBLE) + outcomes(world, Outcome.DEADLINE_EXPIRED)
    in_vain = [record for record in in_vain if record.arrived_at > WARM_S]
    at_once = [record for record in in_vain if record.ended_at == record.arrived_at]
    assert len(at_once) >= TOLD_AT_ONCE * len(in_vain)


@pytest.mark.parametrize(("load", "jitter"), [(0.6, 0.0), (0.95, 0.1)])
def test_below_capacity_nobody_is_refused(load, jitter):
    service = Service(0.005, 0.001, 1, 8, jitter)
    world = World(core_settings(CLASSES), [BackendPlan("gpu0", {"m": service})])
    world.add(Poisson(load=Load(patience_s=PATIENCE_S), per_s=load * service.rows_per_s()))
    world.run(10.0)
    assert not outcomes(world, Outcome.DEADLINE_INFEASIBLE)


def test_before_anything_was_learned_every_ticket_may_try():
    world = World(core_settings(CLASSES), [BackendPlan("gpu0", {"m": Service(0.1, 0.1, 1, 8)})])
    world.add(Poisson(load=Load(patience_s=0.15), per_s=100))
    world.run(0.2)
    assert not outcomes(world, Outcome.DEADLINE_INFEASIBLE)
