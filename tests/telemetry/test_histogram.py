from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.telemetry.histogram import SECONDS, Histogram, percentile


def test_bounds_reach_from_a_tenth_of_a_millisecond_to_a_minute_in_even_steps():
    assert SECONDS[0] == 0.0001
    assert SECONDS[-1] >= 60
    assert max(b / a for a, b in pairwise(SECONDS)) < 1.3


def test_published_buckets_are_cumulative_and_end_with_everything():
    histogram = Histogram((1.0, 2.0, 4.0, 8.0, 16.0))
    for value in (1, 1.5, 3, 3, 9, 100):
        histogram.observe(value)
    assert histogram.cumulative() == [("1", 1), ("2", 2), ("4", 4), ("8", 4), ("16", 5), ("+Inf", 6)]
    assert histogram.cumulative(2) == [("1", 1), ("4", 4), ("16", 5), ("+Inf", 6)]
    assert (histogram.count, histogram.total) == (6, 117.5)


def test_percentile_of_nothing_is_none():
    assert percentile((1.0,), (0, 0), 0.5) is None


def test_percentile_beyond_the_last_bound_is_the_last_bound():
    assert percentile((1.0,), (0, 3), 0.5) == 1.0


def test_percentile_is_interpolated_within_its_bucket():
    assert percentile((1.0, 2.0), (0, 4, 0), 0.5) == pytest.approx(1.5)


@given(st.lists(st.floats(0.0001, 60), min_size=1), st.floats(0.01, 1))
def test_percentile_lies_in_the_bucket_of_the_true_one(values: list[float], part: float) -> None:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.observe(value)
    rank = next(place for place in range(len(values)) if place + 1 >= part * len(values))
    true = sorted(values)[rank]
    found = percentile(SECONDS, histogram.counts, part)
    bucket = bisect_left(SECONDS, true)
    assert found is not None
    assert (SECONDS[bucket - 1] if bucket else 0.0) <= found <= SECONDS[bucket]
