from random import Random

import pytest

from scheduler.core.queues.returns import KNOWN_ANSWERS, Returns

SERVICE_S, WINDOW_S = 0.020, 0.005


def answer(returns: Returns, rows: int, now: float) -> None:
    returns.answered(rows, "k", {"a"}, WINDOW_S, now=now)


def closed_loop(returns: Returns, answers: int, rows: int = 16, after_s: float = 0.002, back: int = 16) -> float:
    """Every 20 ms an answer of so many rows, of which some come back soon after it."""
    now = 0.0
    for _ in range(answers):
        answer(returns, rows, now)
        for _ in range(back):
            returns.arrived(1, now=now + after_s)
        now += SERVICE_S
    return now


def test_before_enough_answers_nothing_is_expected():
    returns = Returns()
    assert returns.expected() == 0
    now = closed_loop(returns, KNOWN_ANSWERS)
    answer(returns, 16, now - 0.001)
    assert returns.part > 0
    fresh = Returns()
    closed_loop(fresh, KNOWN_ANSWERS)
    assert fresh.part == 0.0


def test_rows_of_an_answer_are_expected_until_they_have_come():
    returns = Returns()
    now = closed_loop(returns, 20)
    answer(returns, 16, now)
    assert returns.expected() == pytest.approx(16)
    assert returns.until == now + WINDOW_S
    for _ in range(10):
        returns.arrived(1, now=now + 0.001)
    assert returns.expected() == pytest.approx(6)


def test_of_callers_of_whom_some_come_back_that_part_is_expected():
    returns = Returns()
    answer(returns, 16, closed_loop(returns, 40, back=4))
    assert returns.expected() == pytest.approx(4, rel=0.1)


def test_answers_in_the_same_moment_are_one():
    returns = Returns()
    now = closed_loop(returns, 20)
    answer(returns, 10, now)
    answer(returns, 6, now)
    assert returns.expected() == pytest.approx(16)


def test_callers_that_come_back_after_the_window_are_not_expected():
    returns = Returns()
    answer(returns, 16, closed_loop(returns, 20, after_s=0.010))
    assert returns.expected() == 0


@pytest.mark.parametrize("per_s", [40.0, 400.0, 4000.0])
@pytest.mark.parametrize("instances", [1, 2, 8])
def test_independent_arrivals_are_not_taken_for_callers_that_come_back(per_s, instances):
    chance, returns = Random(1), Returns()
    due, expected, looks = chance.expovariate(per_s), 0, 2000
    for number in range(looks):
        now = number * SERVICE_S / instances
        answer(returns, max(1, int(per_s * SERVICE_S / instances)), now)
        expected += returns.part > 0
        while due < now + SERVICE_S / instances:
            returns.arrived(1, now=due)
            due += chance.expovariate(per_s)
    # By chance a dozen answers of few arrivals each may look alike.
    assert expected <= 0.1 * looks
    assert per_s < 400 or expected == 0


def test_callers_that_stay_away_are_forgotten_within_a_dozen_answers():
    returns = Returns()
    now = closed_loop(returns, 50)
    for _ in range(12):
        answer(returns, 16, now)
        returns.arrived(16, now=now + 0.015)
        now += SERVICE_S
    assert returns.part == 0.0


def test_of_callers_with_several_merge_keys_nothing_is_expected():
    returns = Returns()
    for number in range(50):
        returns.answered(16, "kl"[number % 2], {"a"}, WINDOW_S, now=number * SERVICE_S)
        returns.arrived(16, now=number * SERVICE_S + 0.002)
    assert returns.part == 0.0


def test_it_tells_whose_rows_were_answered():
    returns = Returns()
    returns.answered(2, "k", {"a", "b"}, WINDOW_S, now=1.0)
    assert returns.merge_key == "k"
    assert returns.tenants == {"a", "b"}
