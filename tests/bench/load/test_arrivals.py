from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from bench.load.arrivals import Arrivals, Bursty, Diurnal, Level, Poisson, Replay, offsets_s

CONSTANT = Poisson()


def arrivals_s(kind: Any, rate_per_s: float, duration_s: float, *, seed: int = 1, **options: Any) -> Any:
    return offsets_s(kind, rate_per_s, duration_s, seed=seed, stream=options.pop("stream", "one"), **options)


@pytest.mark.parametrize("kind", [CONSTANT, Bursty(kind="bursty"), Diurnal(kind="diurnal")])
def test_same_seed_same_arrivals(kind: Any) -> None:
    first = arrivals_s(kind, 20, 40)
    assert np.array_equal(first, arrivals_s(kind, 20, 40))
    assert not np.array_equal(first, arrivals_s(kind, 20, 40, seed=2))


def test_streams_of_one_run_are_independent() -> None:
    one, other = (arrivals_s(CONSTANT, 20, 40, stream=name) for name in ("interactive", "background"))
    assert not np.array_equal(one[:10], other[:10])


def test_rate_and_spread_are_those_of_a_poisson_process() -> None:
    offsets = arrivals_s(CONSTANT, 500, 100, seed=4)
    gaps_s = np.diff(offsets)
    assert len(offsets) == pytest.approx(50_000, abs=5 * np.sqrt(50_000))
    assert gaps_s.mean() == pytest.approx(1 / 500, rel=0.03)
    assert gaps_s.std() == pytest.approx(1 / 500, rel=0.05)  # exponential gaps: deviation equals mean
    assert np.all(gaps_s >= 0)
    assert offsets[-1] < 100


def test_a_run_can_be_too_short_for_an_arrival() -> None:
    assert len(arrivals_s(CONSTANT, 0.001, 0.001)) == 0


def test_a_step_changes_the_rate_at_once_and_a_ramp_by_its_area() -> None:
    step = [Level(at=0, level=1), Level(at=0.5, level=1), Level(at=0.5, level=3), Level(at=1, level=3)]
    offsets = arrivals_s(CONSTANT, 200, 100, profile=step)
    assert np.count_nonzero(offsets < 50) == pytest.approx(10_000, abs=500)
    assert np.count_nonzero(offsets >= 50) == pytest.approx(30_000, abs=870)
    ramp = arrivals_s(CONSTANT, 200, 100, profile=[Level(at=0, level=0), Level(at=1, level=2)])
    assert np.count_nonzero(ramp < 50) == pytest.approx(5_000, abs=355)  # a quarter of the triangle's area
    assert len(ramp) == pytest.approx(20_000, abs=710)


def test_bursts_keep_the_mean_rate_and_leave_silence_between() -> None:
    offsets = arrivals_s(Bursty(kind="bursty", burst_s=0.2, duty=0.2), 100, 500)
    assert len(offsets) == pytest.approx(50_000, rel=0.15)
    by_tenth = np.histogram(offsets, bins=5000, range=(0, 500))[0]
    assert by_tenth.var() / by_tenth.mean() > 5  # a Poisson process has 1
    assert np.count_nonzero(by_tenth == 0) > 2000


def test_a_day_is_low_at_its_ends_and_high_in_the_middle() -> None:
    offsets = arrivals_s(Diurnal(kind="diurnal", amplitude=0.8), 100, 100)
    tenths = np.histogram(offsets, bins=10, range=(0, 100))[0]
    assert len(offsets) == pytest.approx(10_000, abs=500)
    assert max(tenths[0], tenths[-1]) < 400
    assert min(tenths[4], tenths[5]) > 1600


def test_replay_gives_the_recorded_arrivals(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("0.5,a\n1.0,b\n4.0,c\n")
    trace = Replay(kind="replay", file=tmp_path / "trace.csv", speed=2)
    assert arrivals_s(trace, 0, 1.9).tolist() == [0.25, 0.5]


@pytest.mark.parametrize("text", ["1\n0.5\n", "a\n", "", "-1\n2\n"])
def test_a_replay_file_of_anything_else_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.csv").write_text(text)
    with pytest.raises(ValueError, match=r"trace\.csv"):
        arrivals_s(Replay(kind="replay", file=tmp_path / "trace.csv"), 0, 1)


def test_a_kind_may_be_given_by_its_name_alone() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Arrivals)
    assert adapter.validate_python("diurnal") == Diurnal(kind="diurnal")
    assert adapter.validate_python({"kind": "bursty", "duty": 0.5}).duty == 0.5
    with pytest.raises(ValidationError, match="regular"):
        adapter.validate_python("regular")
