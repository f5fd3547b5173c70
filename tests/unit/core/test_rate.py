import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.rate import TokenBucket


def let_in(bucket: TokenBucket, now: float) -> bool:
    if bucket.wait_s(now=now) > 0:
        return False
    bucket.take(now=now)
    return True


def test_a_new_bucket_holds_a_burst():
    bucket = TokenBucket(10, 3)
    assert [let_in(bucket, 0.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("started_at", [0.0, 1e6])
def test_the_wait_is_the_exact_time_until_a_token_is_there(started_at):
    bucket = TokenBucket(4, 2)
    for _ in range(2):
        bucket.take(now=started_at)
    assert bucket.wait_s(now=started_at) == 0.25
    assert bucket.wait_s(now=started_at + 0.125) == 0.125
    assert bucket.wait_s(now=started_at + 0.25) == 0
    assert let_in(bucket, started_at + 0.25)
    assert not let_in(bucket, started_at + 0.25)


def test_a_bucket_holds_no_more_than_a_burst_after_any_silence():
    bucket = TokenBucket(10, 3)
    bucket.take(now=0.0)
    assert [let_in(bucket, 1e6) for _ in range(4)] == [True, True, True, False]


def test_asking_takes_nothing():
    bucket = TokenBucket(1, 1)
    assert [bucket.wait_s(now=0.0) for _ in range(5)] == [0] * 5


def test_a_bucket_is_full_again_when_it_says():
    bucket = TokenBucket(10, 3)
    for _ in range(3):
        bucket.take(now=5.0)
    assert bucket.full_at == pytest.approx(5.3)
    full_at = bucket.full_at
    assert [let_in(bucket, full_at) for _ in range(4)] == [True, True, True, False]


def test_who_asks_for_less_than_the_rate_is_never_refused():
    bucket = TokenBucket(8, 1)
    assert all(let_in(bucket, second / 8) for second in range(1000))


@given(
    rate_per_s=st.floats(0.1, 1000),
    burst=st.integers(1, 20),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_in_any_window_no_more_are_let_in_than_burst_and_rate_times_its_length(rate_per_s, burst, gaps):
    bucket, now, times = TokenBucket(rate_per_s, burst), 0.0, []
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
    bucket = TokenBucket(rate_per_s, burst)
    for _ in range(burst):
        bucket.take(now=at)
    assert bucket.wait_s(now=at + bucket.wait_s(now=at)) <= 1e-9
