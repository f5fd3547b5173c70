import pytest

from scheduler.core.backends.breaker import (
    FAILURES_TO_OPEN,
    FIRST_BACKOFF_S,
    LAST_BACKOFF_S,
    Breaker,
    BreakerState,
)


def opened(at: float = 10.0) -> Breaker:
    breaker = Breaker()
    breaker.failed(1, "lost", at_once=True, now=at)
    return breaker


def probing(batch_id: int = 2) -> Breaker:
    breaker = opened()
    breaker.tick(now=breaker.retry_at)
    breaker.sent(batch_id)
    return breaker


def test_a_new_breaker_is_closed():
    breaker = Breaker()
    assert (breaker.state, breaker.takes_batch) == (BreakerState.CLOSED, True)
    assert (breaker.since, breaker.why, breaker.retry_at) == (0.0, "", 0.0)
    assert breaker.tick(now=5.0) is False


def test_failures_in_a_row_open_it():
    breaker = Breaker()
    for number in range(FAILURES_TO_OPEN - 1):
        breaker.failed(number, "unavailable", at_once=False, now=1.0)
        assert breaker.takes_batch
    breaker.failed(99, "garbled", at_once=False, now=2.0)
    assert (breaker.state, breaker.why, breaker.since, breaker.takes_batch) == (
        BreakerState.OPEN,
        "garbled",
        2.0,
        False,
    )


def test_a_lost_connection_opens_it_at_once():
    breaker = opened(10.0)
    assert (breaker.state, breaker.retry_at, breaker.openings) == (BreakerState.OPEN, 10.0 + FIRST_BACKOFF_S, 1)


def test_it_lets_one_probe_out_when_its_time_has_come_and_not_before():
    breaker = opened(10.0)
    assert not breaker.tick(now=breaker.retry_at - 0.001)
    assert breaker.tick(now=breaker.retry_at)
    assert not breaker.tick(now=breaker.retry_at)
    assert (breaker.state, breaker.since, breaker.takes_batch) == (BreakerState.HALF_OPEN, breaker.retry_at, True)
    breaker.sent(2)
    assert not breaker.takes_batch


def test_a_failed_probe_opens_it_for_twice_as_long():
    breaker = probing(2)
    breaker.failed(2, "unavailable", at_once=False, now=20.0)
    assert (breaker.state, breaker.retry_at, breaker.why) == (
        BreakerState.OPEN,
        20.0 + 2 * FIRST_BACKOFF_S,
        "unavailable",
    )


def test_batches_sent_before_the_opening_count_for_nothing_when_they_fail():
    breaker = opened(10.0)
    breaker.failed(1, "lost", at_once=True, now=10.1)
    assert (breaker.openings, breaker.retry_at) == (1, 10.0 + FIRST_BACKOFF_S)
    breaker = probing(2)
    breaker.failed(1, "lost", at_once=True, now=10.3)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_probe_that_is_withdrawn_makes_room_for_another():
    breaker = probing(2)
    breaker.withdrawn(1)
    assert not breaker.takes_batch
    breaker.withdrawn(2)
    assert breaker.takes_batch


def test_the_backoff_doubles_up_to_its_bound():
    breaker, now, pauses = Breaker(), 0.0, []
    for number in range(100):
        breaker.failed(number, "lost", at_once=True, now=now)
        pauses.append(breaker.retry_at - now)
        now = breaker.retry_at
        breaker.tick(now=now)
        breaker.sent(number + 1)
    assert pauses[:4] == pytest.approx([FIRST_BACKOFF_S * factor for factor in (1, 2, 4, 8)])
    assert pauses[-1] == pytest.approx(LAST_BACKOFF_S)


def test_a_batch_that_is_sent_while_it_is_closed_is_no_probe():
    breaker = Breaker()
    breaker.sent(1)
    assert breaker.takes_batch
    breaker.failed(2, "lost", at_once=True, now=1.0)
    breaker.tick(now=breaker.retry_at)
    assert breaker.takes_batch
