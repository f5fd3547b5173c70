import numpy as np
import pytest

from bench.arrivals import poisson_offsets_s


def test_same_seed_same_arrivals() -> None:
    first = poisson_offsets_s(20, 40, seed=1, stream="interactive")
    assert np.array_equal(first, poisson_offsets_s(20, 40, seed=1, stream="interactive"))
    assert not np.array_equal(first, poisson_offsets_s(20, 40, seed=2, stream="interactive"))


def test_streams_of_one_run_are_independent() -> None:
    one = poisson_offsets_s(20, 40, seed=1, stream="interactive")
    other = poisson_offsets_s(20, 40, seed=1, stream="background")
    assert not np.array_equal(one[:10], other[:10])


@pytest.mark.parametrize("duration_s", [0.5, 12, 39.9])
def test_a_shorter_run_is_the_beginning_of_a_longer(duration_s: float) -> None:
    long = poisson_offsets_s(20, 40, seed=3, stream="interactive")
    short = poisson_offsets_s(20, duration_s, seed=3, stream="interactive")
    assert np.array_equal(short, long[long < duration_s])


def test_rate_and_spread_are_those_of_a_poisson_process() -> None:
    offsets_s = poisson_offsets_s(500, 100, seed=4, stream="background")
    gaps_s = np.diff(offsets_s)
    assert len(offsets_s) == pytest.approx(50_000, abs=5 * np.sqrt(50_000))
    assert gaps_s.mean() == pytest.approx(1 / 500, rel=0.03)
    assert gaps_s.std() == pytest.approx(1 / 500, rel=0.05)  # exponential gaps: deviation equals mean
    assert np.all(gaps_s >= 0)
    assert offsets_s[-1] < 100


def test_a_run_can_be_too_short_for_an_arrival() -> None:
    assert len(poisson_offsets_s(0.001, 0.001, seed=1, stream="x")) == 0
