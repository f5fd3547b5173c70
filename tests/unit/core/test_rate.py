import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.rate import Charge, Rate, RateUnit, TokenBucket


def bucket_of(per_s: float, burst: float, unit: RateUnit = RateUnit.REQUESTS) -> TokenBucket:
    return TokenBucket(Rate(unit, per_s, burst))


def let_in(bucket: TokenBucket, now: float, cost: float = 1) -> bool:
    if bucket.wait_s(cost, now=now) > 0:
        return False
    bucket.take(cost, now=now)
    return True


def test_a_new_bucket_holds_a_burst():
    bucket = bucket_of(10, 3)
    assert [let_in(bucket, 0.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("started_at", [0.0, 1e6])
def test_the_wait_is_the_exact_time_until_a_token_is_there(started_at):
    bucket = bucket_of(4, 2)
    for _ in range(2):
        bucket.take(now=started_at)
    assert bucket.wait_s(now=started_at) == 0.25
    assert bucket.wait_s(now=started_at + 0.125) == 0.125
    assert bucket.wait_s(now=started_at + 0.25) == 0
    assert let_in(bucket, started_at + 0.25)
    assert not let_in(bucket, started_at + 0.25)


def test_a_bucket_holds_no_more_than_a_burst_after_any_silence():
    bucket = bucket_of(10, 3)
    bucket.take(now=0.0)
    assert [let_in(bucket, 1e6) for _ in range(4)] == [True, True, True, False]


def test_asking_takes_nothing():
    bucket = bucket_of(1, 1)
    assert [bucket.wait_s(now=0.0) for _ in range(5)] == [0] * 5


def test_a_bucket_is_full_again_when_it_says():
    bucket = bucket_of(10, 3)
    for _ in range(3):
        bucket.take(now=5.0)
    assert bucket.full_at == pytest.approx(5.3)
    full_at = bucket.full_at
    assert [let_in(bucket, full_at) for _ in range(4)] == [True, True, True, False]


def test_who_asks_for_less_than_the_rate_is_never_refused():
    bucket = bucket_of(8, 1)
    assert all(let_in(bucket, second / 8) for second in range(1000))


@given(
    rate_per_s=st.floats(0.1, 1000),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_in_any_window_no_more_are_let_in_than_burst_and_rate_times_its_length(rate_per_s, burst, gaps):
    bucket, now, times = bucket_of(rate_per_s, burst), 0.0, []
    for gap in gaps:
        now += gap
        for _ in range(3):
            if let_in(bucket, now):
                times.append(now)
    for first, since in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate_per_s * (times[last] - since) + 1e-6


@given(rate_per_s=st.floats(0.1, 1000), burst=st.integers(1, 5), at=st.floats(0, 1e5))
def test_who_waits_as_long_as_he_is_told_to_is_let_in(rate_per_s, burst, at):
    bucket = bucket_of(rate_per_s, burst)
    for _ in range(burst):
        bucket.take(now=at)
    assert bucket.wait_s(now=at + bucket.wait_s(now=at)) <= 1e-9


def test_a_rate_of_rows_counts_the_rows_of_each():
    bucket = bucket_of(100, 100, RateUnit.ROWS)
    assert [let_in(bucket, 0.0, 32) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s(32, now=0.0) == pytest.approx(0.28)
    assert bucket.wait_s(4, now=0.0) == 0


def test_what_costs_more_than_a_burst_needs_a_full_bucket_and_leaves_a_debt():
    bucket = bucket_of(100, 10, RateUnit.ROWS)
    assert let_in(bucket, 0.0, 60)
    assert bucket.wait_s(1, now=0.0) == pytest.approx(0.51)
    assert bucket.wait_s(60, now=0.0) == pytest.approx(0.6)
    assert [let_in(bucket, 0.599, 60), let_in(bucket, 0.6000001, 60)] == [False, True]


def test_who_sends_large_ones_at_the_rate_is_never_refused():
    bucket = bucket_of(64, 10, RateUnit.ROWS)
    assert all(let_in(bucket, float(second), 64) for second in range(1000))


def test_seconds_that_were_not_used_come_back_and_those_used_beyond_the_estimate_are_taken():
    bucket = bucket_of(0.5, 1, RateUnit.SECONDS)
    bucket.take(0.5, now=0.0)
    charge = Charge(bucket, 0.5)
    assert bucket.wait_s(1, now=0.0) == 1
    charge.settle(0.25, now=0.0)
    assert bucket.wait_s(1, now=0.0) == 0.5
    charge.settle(0.75, now=0.0)  # another try
    assert bucket.wait_s(0, now=0.0) == 0
    assert bucket.wait_s(1, now=0.0) == 2
    charge.settle(2, now=0.0)
    assert bucket.wait_s(0, now=0.0) == 4


def test_what_comes_back_fills_the_bucket_no_further_than_a_burst():
    bucket = bucket_of(0.5, 1, RateUnit.SECONDS)
    bucket.take(0.5, now=0.0)
    Charge(bucket, 0.5).settle(0.0, now=100.0)
    assert [let_in(bucket, 100.0, 0.5) for _ in range(3)] == [True, True, False]


def test_a_rate_tells_of_itself():
    assert str(Rate(RateUnit.SECONDS, 0.5, 1)) == "0.5 seconds of service a second, 1 at once"


STEPS = st.tuples(st.floats(0, 2), st.floats(0, 3), st.one_of(st.none(), st.floats(0, 3)))


@given(per_s=st.floats(0.1, 10), burst=st.floats(0.1, 5), steps=st.lists(STEPS, min_size=1, max_size=40))
def test_in_any_window_what_is_taken_is_within_the_largest_or_a_burst_and_rate_times_its_length(per_s, burst, steps):
    """`steps`: after how long, of what cost, and what the oldest that is out then turns out to have used."""
    bucket, now = bucket_of(per_s, burst, RateUnit.SECONDS), 0.0
    taken: list[tuple[float, float, bool]] = []  # when, how much, whether it was let in then
    out: list[tuple[Charge, float]] = []
    for gap, cost, used in steps:
        now += gap
        if let_in(bucket, now, cost):
            taken.append((now, cost, True))
            out.append((Charge(bucket, cost), cost))
        if used is not None and out:
            charge, expected = out.pop(0)
            charge.settle(used, now=now)
            taken.append((now, used - expected, False))
    for first, (since, _, _) in enumerate(taken):
        total = 0.0
        for at, much, entered in taken[first:]:
            total += much
            if entered:
                assert total <= max(burst, much) + per_s * (at - since) + 1e-6
