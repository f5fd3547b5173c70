"""Long work, and backends that stand still or go, against closed forms."""

import pytest

from scheduler.core.outcome import Outcome
from simulate.scenario import class_settings, core_settings
from simulate.world.backend import PROBE_S, BackendPlan, Service
from simulate.world.clients import Poisson
from simulate.world.load import Load
from simulate.world.outage import Fault, Outage
from simulate.world.record import Record
from simulate.world.world import World

# Seconds a row; the long request has as many rows as to take long.
ROW_S = 0.1
LONG_ROWS = 300


def world_of(*outages: Outage, instances: int = 1, backends: int = 1, rows: int = LONG_ROWS) -> World:
    plans = [
        BackendPlan(f"gpu{number}", {"m": Service(0.0, ROW_S, instances, rows)}, None, outages if not number else ())
        for number in range(backends)
    ]
    return World(core_settings((class_settings("interactive"),)), plans)


def send(world: World, at: float, count: int = 1, rows: int = 1) -> None:
    def submit() -> None:
        for _ in range(count):
            world.submit(Load("interactive", "t", rows=rows, merge_key=None), chance=None)  # type: ignore[arg-type]

    world.clock.at(at, submit)


def batches(world: World) -> int:
    """Batches that any backend has begun."""
    return sum(len(backend.batch_rows["m"]) for backend in world.backends.values())


def ended(world: World) -> list[Record]:
    assert {record.outcome for record in world.records} == {Outcome.COMPLETED}
    return world.records


def test_a_long_request_is_done_once_and_ends_when_its_work_is_done():
    world = world_of(instances=2)
    send(world, 0.0)  # what is usual is learned from it
    send(world, 1.0, rows=LONG_ROWS)
    for second in range(2, 30):
        send(world, float(second))
    world.run(60.0)
    _, long, *short = ended(world)
    assert long.latency_s == pytest.approx(LONG_ROWS * ROW_S)
    assert [record.latency_s for record in short] == pytest.approx([ROW_S] * 28)
    assert batches(world) == 30


def test_those_behind_a_long_request_wait_for_what_is_left_of_it_and_for_those_before_them():
    world = world_of()
    send(world, 0.0)
    send(world, 1.0, rows=LONG_ROWS)
    send(world, 16.0, 4)
    world.run(60.0)
    waits_s = [record.wait_s for record in ended(world)[2:]]
    assert waits_s == pytest.approx([1.0 + LONG_ROWS * ROW_S - 16.0 + number * ROW_S for number in range(4)])
    assert batches(world) == 6


@pytest.mark.parametrize("length_s", [2.0, 4.0, 15.0, 29.0])
def test_a_server_that_stands_still_delays_everybody_by_as_long_and_loses_nobody(length_s):
    world = world_of(Outage(Fault.HUNG, 1.07, length_s))
    send(world, 0.95, 40)
    world.run(100.0)
    last_s = max(record.ended_at for record in ended(world))
    # It is found back by the next probe; what it holds goes on by itself.
    assert 0.95 + 40 * ROW_S + length_s <= last_s + 1e-9
    assert last_s <= 0.95 + 40 * ROW_S + length_s + PROBE_S
    assert batches(world) == 40


@pytest.mark.parametrize("length_s", [0.3, 4.0, 20.0])
def test_a_server_that_goes_and_comes_back_costs_nobody_an_answer(length_s):
    world = world_of(Outage(Fault.DOWN, 1.07, length_s))
    send(world, 0.95, 40)
    send(world, 2.0, 5)
    world.run(100.0)
    ended(world)
    # One was running when it went.
    assert batches(world) == 46


def test_an_outage_that_is_too_long_ends_what_waits_and_what_was_overdue():
    world = world_of(Outage(Fault.HUNG, 1.07, 100.0))
    send(world, 0.95, 10)
    world.run(90.0)
    outcomes = [record.outcome for record in world.records]
    assert outcomes == [Outcome.COMPLETED, Outcome.BACKEND_LOST, Outcome.BACKEND_LOST, *[Outcome.NO_BACKEND] * 7]


def test_another_backend_takes_over_and_what_the_silent_one_holds_is_answered_when_it_goes_on():
    world = world_of(Outage(Fault.HUNG, 1.0, 20.0), backends=2)
    send(world, 0.95, 4)
    send(world, 3.0, 20)
    world.run(100.0)
    records = ended(world)
    assert batches(world) == 24
    assert sum(record.ended_at >= 21.0 for record in records) == 2
    assert max(record.latency_s for record in records[4:]) <= 20 * ROW_S + 1e-9


def test_nobody_is_refused_by_chance_while_a_server_flaps():
    world = world_of(*(Outage(Fault.DOWN, at, 2.0) for at in (5.0, 12.0, 19.0)), rows=8)
    world.add(Poisson(load=Load("interactive", "t"), per_s=5.0))
    world.run(30.0)
    assert world.settle(60.0)
    assert {record.outcome for record in world.records} == {Outcome.COMPLETED}
