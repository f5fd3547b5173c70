import numpy as np

from quantize.interval import interval


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
