import tracemalloc

import numpy as np
import pytest

import quantize.accuracy.confidence_interval
from quantize.accuracy.confidence_interval import interval


def test_interval_of_a_proportion_agrees_with_the_normal_approximation() -> None:
    hits = np.arange(400) % 4 == 0
    low, high = interval(hits.astype(np.float32))
    half = 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert abs(low - (0.25 - half)) < 0.005
    assert abs(high - (0.25 + half)) < 0.005


def test_interval_is_the_same_each_time_and_a_point_for_constants() -> None:
    values = np.random.default_rng(0).normal(0, 1, 50).astype(np.float32)
    assert interval(values) == interval(values)
    assert interval(np.ones(10, np.float32)) == (1, 1)


def test_interval_does_not_depend_on_how_many_samples_are_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(0, 1, 51).astype(np.float32)
    expected = interval(values)
    for drawn in (1, 51 * 7, 51 * 2000):
        monkeypatch.setattr(quantize.accuracy.confidence_interval, "DRAWN", drawn)
        assert interval(values) == expected


def test_memory_does_not_grow_with_resamples_times_samples() -> None:
    values = np.zeros(20_000, np.float32)
    tracemalloc.start()
    interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All at once would be 640 MB.
    assert peak < 64e6
