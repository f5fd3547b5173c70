from math import inf

import pytest

from scheduler.core.backends.executions import Ended, Execution, Executions
from tests.unit.core.build import make_batch

# Rows of one execution, at most.
MOST = 8


def send(executions, batch_id, at, *, into=None, rows=1, instances=1, estimate_s=0.01, **about):
    batch = make_batch(batch_id, rows=rows, dispatched_at=at, estimate_s=estimate_s)
    execution = Execution("k", 0, estimate_s) if into is None else into
    executions.add(batch, execution, instances, **about)
    return batch, execution


@pytest.fixture
def executions():
    return Executions()


def test_the_first_runs_at_once_and_the_next_lies_ready(executions):
    (first, running), (second, ready) = send(executions, 1, 1.0), send(executions, 2, 1.5)
    assert (first.started_at, second.started_at) == (1.0, None)
    assert (running.started_at, ready.started_at) == (1.0, None)
    assert list(executions.ready()) == [ready]
    assert executions.end(first, answered=True, now=3.0) == Ended(1, 2.0)
    assert second.started_at == 3.0
    assert executions.end(second, answered=True, now=4.0) == Ended(1, 1.0)
    assert not executions


def test_what_joins_what_lies_ready_runs_with_it_and_holds_no_place_of_its_own(executions):
    first, _ = send(executions, 1, 1.0)
    _, ready = send(executions, 2, 1.0)
    third, _ = send(executions, 3, 1.5, into=ready, rows=4)
    assert (len(executions), executions.rows, ready.rows) == (3, 6, 5)
    assert executions.spare(1) == -2
    assert not executions.has_place(2, MOST)
    executions.end(first, answered=True, now=3.0)
    assert third.started_at == 3.0
    assert executions.has_place(2, MOST)


def test_the_first_answer_of_an_execution_tells_what_all_of_it_took(executions):
    first, _ = send(executions, 1, 0.0)
    second, ready = send(executions, 2, 0.0)
    third, _ = send(executions, 3, 0.0, into=ready, rows=3)
    executions.end(first, answered=True, now=1.0)
    fourth, _ = send(executions, 4, 1.0)
    assert executions.end(third, answered=True, now=3.0) == Ended(4, 2.0)
    assert fourth.started_at == 3.0
    assert executions.end(second, answered=True, now=3.1) is None
    assert (len(executions), executions.rows) == (1, 1)


def test_one_that_is_withdrawn_leaves_the_others_of_its_execution_running(executions):
    first, running = send(executions, 1, 0.0)
    second, _ = send(executions, 2, 0.0, into=running, rows=2)
    waiting, ready = send(executions, 3, 0.0)
    also, _ = send(executions, 4, 0.0, into=ready, rows=2)
    assert executions.end(second, answered=False, now=1.0) is None
    assert waiting.started_at is None
    assert executions.end(also, answered=False, now=1.0) is None
    # What lay ready has become smaller; what runs has not.
    assert (running.rows, ready.rows) == (3, 1)
    assert executions.end(first, answered=True, now=2.0) == Ended(3, 2.0)
    assert executions.end(waiting, answered=False, now=2.5) == Ended(1, 0.5)


def test_late_answers_count_by_their_rows(executions):
    first, running = send(executions, 1, 0.0, rows=8)
    for number in range(2, 9):
        send(executions, number, 0.0, into=running)
    executions.end(first, answered=True, now=1.0)
    assert executions.has_place(2, MOST)
    _, ready = send(executions, 20, 1.0, rows=8)
    assert executions.rows == 15
    assert executions.has_place(2, MOST)
    assert executions.takes(1, 2, MOST)
    assert not executions.takes(2, 2, MOST)
    send(executions, 21, 1.0, into=ready)
    assert not executions.has_place(2, MOST)


def test_nothing_in_flight_takes_what_is_larger_than_all(executions):
    assert executions.has_place(2, 1)
    assert (executions.next_free_at(), executions.open_at(1, now=2.0), executions.work_s) == (-inf, 2.0, 0.0)


def test_when_an_instance_is_free_is_behind_what_lies_ready(executions):
    send(executions, 1, 0.0, estimate_s=3.0, instances=2)
    assert executions.has_idle(2)
    assert executions.open_at(2, now=1.0) == 1.0
    send(executions, 2, 0.0, estimate_s=1.0, instances=2)
    assert not executions.has_idle(2)
    assert executions.next_free_at() == 1.0
    send(executions, 3, 0.0, estimate_s=4.0, instances=2)
    # The third runs from 1 to 5; one that runs late is expected to end at any moment.
    assert executions.open_at(2, now=0.5) == 3.0
    assert executions.open_at(2, now=3.5) == 3.5
    assert executions.work_s == 8.0


def test_more_instances_take_what_lies_ready(executions):
    batches = [send(executions, number, 0.0)[0] for number in range(3)]
    executions.fill(2, now=2.0)
    assert [batch.started_at for batch in batches] == [0.0, 2.0, None]
    executions.fill(4, now=3.0)
    assert batches[2].started_at == 3.0


def test_nothing_joins_what_has_no_key(executions):
    send(executions, 1, 0.0)
    send(executions, 2, 0.0, into=Execution(None, 0))
    assert list(executions.ready()) == []


def test_where_triton_waits_for_rows_an_execution_lies_ready_until_it_has_them(executions):
    first, filling = send(executions, 1, 0.0, full_rows=4)
    assert first.started_at is None
    assert list(executions.ready()) == [filling]
    second, _ = send(executions, 2, 0.5, into=filling, rows=3, full_rows=4)
    assert (first.started_at, second.started_at) == (0.5, 0.5)
    assert executions.end(second, answered=True, now=1.0) == Ended(4, 0.5)


def test_an_instance_that_waits_for_an_execution_to_fill_takes_it_next(executions):
    for number in range(2):
        send(executions, number, 0.0, full_rows=4, instances=2, estimate_s=3.0)
    assert executions.open_at(2, now=1.0) == 4.0
    assert executions.open_at(1, now=1.0) == 7.0


def test_one_that_triton_did_not_wait_to_fill_counts_from_when_it_was_sent(executions):
    first, _ = send(executions, 1, 0.0, full_rows=4)
    assert executions.end(first, answered=True, now=0.1) == Ended(1, 0.1)


def test_what_has_begun_is_told_once_for_an_execution(executions):
    _, running = send(executions, 1, 0.0)
    send(executions, 2, 0.0, into=running)
    send(executions, 3, 0.0, into=Execution("k", 1))
    assert (executions.begun, executions.lesser(0), executions.lesser(1)) == (0, 1, 0)
    assert [executions.begin(number) for number in (1, 2, 3)] == [True, False, True]
    assert (executions.begun, executions.lesser(0)) == (2, 0)


def test_rows_of_a_merge_key_are_those_of_executions_that_hold_no_other(executions):
    for number, keys in enumerate([{"k"}, {"l"}, {"k", "l"}, {"k"}, {None}]):
        _, execution = send(executions, number, 0.0, rows=number + 1)
        execution.merge_keys |= keys
    assert (executions.rows_of("k"), executions.rows_of("l"), executions.rows_of(None)) == (5, 2, 5)


def test_executions_are_counted_and_not_the_batches_in_them(executions):
    _, running = send(executions, 1, 0.0)
    send(executions, 2, 0.0, into=running)
    assert (executions.count, len(executions)) == (1, 2)
