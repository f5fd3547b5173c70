"""The retry state machine alone, with literal times."""

import pytest
from fairlane.errors import BackendError, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from fairlane.retry import CallRetry, RetryBudget, RetryPolicy

NO_BACKOFF_JITTER = 0.5
POLICY = RetryPolicy(initial_backoff_s=0.05, max_backoff_s=0.15, budget_tokens=100)


def retry_of(policy=POLICY, *, deadline_s=None, repeatable=True, budget=None):
    return CallRetry(policy, budget or RetryBudget(policy), deadline_s=deadline_s, repeatable=repeatable)


def refused(after_s):
    return Overloaded("full", retry_after_s=after_s)


def not_connected():
    error = Unavailable("failed to connect")
    error.never_sent = True
    return error


def fail(retry, error, *, now_s=0.0, chance=NO_BACKOFF_JITTER):
    retry.begin(now_s=now_s)
    return retry.failed(error, now_s=now_s, chance=chance)


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 2.0), (0.5, 2.1)])
def test_pushback_is_waited_out_and_jitter_only_adds(chance, wait_s):
    assert fail(retry_of(), refused(2.0), chance=chance) == pytest.approx(wait_s)


def test_pushback_of_zero_means_at_once():
    assert fail(retry_of(), refused(0.0)) == 0.0


def test_unavailable_with_pushback_is_tried_again():
    assert fail(retry_of(), Unavailable("draining", retry_after_s=1.0), chance=0.0) == 1.0


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("no pushback"),
        Unavailable("connection lost under the call"),
        DeadlineExceeded("late"),
        InvalidRequest("wrong"),
        BackendError("failed"),
        BackendError("failed", retry_after_s=1.0),
    ],
)
def test_what_may_have_run_or_will_fail_again_is_given_up(error):
    assert fail(retry_of(), error) is None


def test_backoff_doubles_up_to_its_bound():
    retry = retry_of()
    assert [fail(retry, not_connected()) for _ in range(3)] == pytest.approx([0.05, 0.1, 0.15])


@pytest.mark.parametrize(("chance", "wait_s"), [(0.0, 0.04), (0.75, 0.055)])
def test_backoff_jitter_is_twenty_percent_both_ways(chance, wait_s):
    assert fail(retry_of(), not_connected(), chance=chance) == pytest.approx(wait_s)


def test_attempts_are_bounded():
    retry = retry_of(RetryPolicy(max_attempts=3, budget_tokens=100))
    assert [fail(retry, refused(1.0), chance=0.0) for _ in range(3)] == [1.0, 1.0, None]
    assert retry.attempts == 3


def test_sequence_is_never_sent_again():
    assert fail(retry_of(repeatable=False), refused(0.1)) is None


@pytest.mark.parametrize(("pushback_s", "wait_s"), [(4.9, 4.9), (5.0, None), (60.0, None)])
def test_wait_that_does_not_fit_before_the_deadline_is_not_begun(pushback_s, wait_s):
    assert fail(retry_of(deadline_s=15.0), refused(pushback_s), now_s=10.0, chance=0.0) == wait_s


def test_attempt_gets_what_is_left_of_the_whole():
    retry = retry_of(deadline_s=10.0)
    assert [retry.begin(now_s=now_s) for now_s in (0.0, 7.5, 10.0)] == [10.0, 2.5, 0.0]
    assert retry.attempts == 2


def test_no_deadline_is_no_limit():
    assert retry_of().begin(now_s=5.0) is None


def test_budget_stops_retries_when_half_is_gone():
    budget = RetryBudget(RetryPolicy(budget_tokens=10))
    waits = [fail(retry_of(budget=budget), refused(1.0), chance=0.0) for _ in range(6)]
    assert waits == [1.0, 1.0, 1.0, 1.0, None, None]
    assert budget.tokens == 4


def test_ten_successes_earn_back_one_failure():
    budget = RetryBudget(RetryPolicy(budget_tokens=10, budget_ratio=0.1))
    for _ in range(5):
        budget.failed()
    for _ in range(11):
        retry_of(budget=budget).succeeded()
    assert budget.tokens == pytest.approx(6.1)
    assert fail(retry_of(budget=budget), refused(1.0), chance=0.0) == 1.0


def test_budget_stays_between_zero_and_its_size():
    budget = RetryBudget(RetryPolicy(budget_tokens=2))
    budget.succeeded()
    assert budget.tokens == 2
    for _ in range(3):
        budget.failed()
    assert budget.tokens == 0


def test_errors_that_say_nothing_of_load_cost_no_budget():
    budget = RetryBudget(POLICY)
    fail(retry_of(budget=budget), InvalidRequest("wrong"))
    assert budget.tokens == POLICY.budget_tokens


@pytest.mark.parametrize("bad", [{"max_attempts": 0}, {"budget_ratio": -0.1}, {"initial_backoff_s": float("nan")}])
def test_bad_policy_fails_where_it_is_written(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}: expected"):
        RetryPolicy(**bad)
