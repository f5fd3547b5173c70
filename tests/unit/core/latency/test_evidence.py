import pytest

from scheduler.core.latency.estimate import MAX_LINES, Estimator
from scheduler.core.latency.evidence import EXTENT, FORGET_S, SEEN, Evidence, cost_of
from tests.unit.core.build import make_ticket

ONE = make_ticket(merge_key="k")


def seen(*batches: tuple[int, float], key: str | None = "k", costs: bool = False) -> Evidence:
    """Batches of (rows or cost, seconds) that ended at 0.0, learned before they are told."""
    estimator = Estimator()
    evidence = Evidence(estimator)
    for size, service_s in batches:
        rows, cost = (1, size) if costs else (size, None)
        estimator.add(key, rows, service_s)
        evidence.learn(key, rows, cost, service_s, now=0.0)
    return evidence


def test_the_fastest_of_the_last_nineteen_decides_and_no_mean():
    evidence = seen(*[(1, 6.0)] * 2, *[(1, 0.005)] * (SEEN - 2))
    assert evidence.fastest_s(ONE, 1, now=0.0) == pytest.approx(0.005)


def test_fewer_than_nineteen_say_nothing():
    evidence = seen(*[(1, 6.0)] * (SEEN - 1))
    assert not evidence.known(SEEN, now=0.0)
    assert evidence.known(SEEN - 1, now=0.0)
    assert evidence.fastest_s(ONE, 1, now=0.0) == 0.0


def test_of_the_last_nineteen_alone():
    assert seen((1, 0.001), *[(1, 0.01)] * SEEN).fastest_s(ONE, 1, now=0.0) == pytest.approx(0.01)


@pytest.mark.parametrize(("rows", "expected_s"), [(1, 0.0), (2, 0.012), (4, 0.014), (8, 0.018), (16, 0.026), (17, 0.0)])
def test_sizes_that_were_seen_speak_for_those_no_more_than_twice_apart(rows, expected_s):
    assert EXTENT == 2
    evidence = seen(*[(4, 0.014), (8, 0.018)] * 10)
    assert evidence.fastest_s(ONE, rows, now=0.0) == pytest.approx(expected_s)


def test_another_shape_or_none_says_nothing():
    evidence = seen(*[(1, 0.01)] * SEEN)
    assert evidence.fastest_s(make_ticket(merge_key="other"), 1, now=0.0) == 0.0
    assert evidence.fastest_s(make_ticket(), 1, now=0.0) == 0.0
    assert seen(*[(1, 0.01)] * SEEN, key=None).fastest_s(make_ticket(), 1, now=0.0) == 0.0


def test_by_cost_all_shapes_speak_together():
    evidence = seen(*[(100, 0.011), (200, 0.021)] * 10, key=None, costs=True)
    for cost, expected_s in ((49, 0.0), (50, 0.006), (400, 0.041), (401, 0.0)):
        assert evidence.fastest_s(make_ticket(cost=cost), 3, now=0.0) == pytest.approx(expected_s)
    assert evidence.expected_s(make_ticket(cost=1000)) == pytest.approx(0.101)


def test_what_is_expected_is_by_rows_where_no_cost_was_learned():
    evidence = seen(*[(1, 0.01), (2, 0.02)] * 10)
    assert evidence.expected_s(make_ticket(merge_key="k", rows=3)) == pytest.approx(0.03)
    assert evidence.expected_s(make_ticket(merge_key="k", rows=3, cost=7)) == pytest.approx(0.03)
    assert evidence.cost_s(7) is None
    assert evidence.expected_s(make_ticket(merge_key="other", cost=7)) is None


def test_after_a_minute_without_batches_nothing_is_known():
    evidence = seen(*[(1, 0.01)] * SEEN)
    assert (evidence.known(SEEN, now=FORGET_S), evidence.fastest_s(ONE, 1, now=FORGET_S)) == (True, pytest.approx(0.01))
    assert (evidence.known(SEEN, now=FORGET_S + 0.1), evidence.fastest_s(ONE, 1, now=FORGET_S + 0.1)) == (False, 0.0)


def test_as_many_as_are_asked_for_have_to_be_of_late():
    evidence = seen(*[(1, 0.01)] * SEEN)
    evidence.learn("k", 1, None, 0.01, now=FORGET_S)
    assert [evidence.known(least, now=FORGET_S + 1) for least in (1, 2)] == [True, False]


def test_a_model_whose_batches_take_seconds_is_remembered_for_as_long_as_they_take():
    evidence = seen(*[(1, 5.0)] * SEEN)
    assert evidence.known(SEEN, now=2 * SEEN * 5.0)
    assert evidence.fastest_s(ONE, 1, now=2 * SEEN * 5.0 - 0.1) == pytest.approx(5.0)
    assert not evidence.known(SEEN, now=2 * SEEN * 5.0 + 0.1)


def test_the_least_part_is_of_what_each_shapes_own_line_says_and_at_most_one():
    evidence = seen(*[(1, 0.01)] * SEEN)
    assert evidence.least_part() == pytest.approx(1.0)
    estimator = Estimator()
    evidence = Evidence(estimator)
    for key, service_s in (("short", 0.01), ("long", 1.0)) * SEEN:
        estimator.add(key, 1, service_s)
        evidence.learn(key, 1, None, service_s * 2, now=0.0)
    assert evidence.least_part() == 1.0
    evidence.learn("long", 1, None, 0.25, now=0.0)
    assert evidence.least_part() == 0.25


def test_one_in_twenty_is_tried_all_the_same():
    evidence = seen(*[(1, 0.5)] * SEEN)
    first, second, third = (make_ticket(merge_key="k") for _ in range(3))
    assert evidence.try_one(first, now=1.0)
    assert not evidence.try_one(second, now=1.0 + (SEEN + 1) * 0.5 - 0.1)
    assert evidence.try_one(third, now=1.0 + (SEEN + 1) * 0.5 + 0.1)
    assert [first.tried, second.tried, third.tried] == [True, False, True]


def test_none_of_a_shape_that_was_never_seen_is_marked():
    ticket = make_ticket(merge_key="other")
    assert not seen(*[(1, 0.5)] * SEEN).try_one(ticket, now=1.0)
    assert not ticket.tried


def test_of_those_with_a_cost_as_well():
    evidence = seen(*[(100, 0.5)] * SEEN, costs=True)
    assert evidence.try_one(make_ticket(cost=100), now=1.0)
    assert not evidence.try_one(make_ticket(cost=100), now=10.9)


def test_shapes_beyond_a_bound_are_forgotten_and_the_longest_unseen_first():
    evidence = seen(*[(1, 0.01)] * SEEN)
    for number in range(MAX_LINES - 1):
        evidence.learn(f"other{number}", 1, None, 0.01, now=0.0)
    evidence.learn("k", 1, None, 0.01, now=0.0)
    evidence.learn("one too many", 1, None, 0.01, now=0.0)
    assert evidence.fastest_s(ONE, 1, now=0.0) > 0
    assert len(evidence._by_key) == MAX_LINES
    assert "other0" not in evidence._by_key


def test_the_cost_of_a_batch_is_that_of_all_and_none_where_one_has_none():
    assert cost_of([make_ticket(cost=2), make_ticket(cost=3)]) == 5
    assert cost_of([make_ticket(cost=2), make_ticket()]) is None
