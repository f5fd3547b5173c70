import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from bench.capacity import capacity
from bench.measuring.pool import StreamPool
from bench.recording.recording import Recording
from bench.reporting.plot import duration_axis
from bench.targets.target import Target
from bench.tuning.knee import find_knee, knee
from bench.tuning.trial import Trial, trial_of


def trial(rate_per_s: float, p99_ms: float, ok_share: float = 1.0) -> Trial:
    return Trial(
        rate_per_s=rate_per_s, offered_per_s=rate_per_s, p99_ms=p99_ms, ok_share=ok_share, late_ms=0, others_cores=0,
        fault="",
    )  # fmt: skip


@pytest.mark.parametrize("p99_ms", [50.0, 100.0, 500.0])
async def test_bisection_finds_the_knee_of_a_queue_in_closed_form(p99_ms: float) -> None:
    # M/M/1: the time in the system is exponential with rate mu - lambda, so p99 = ln(100) / (mu - lambda).
    service_per_s = 200.0

    async def measure(rate_per_s: float) -> Trial:
        left = service_per_s - rate_per_s
        return trial(rate_per_s, math.log(100) / left * 1e3 if left > 0 else math.inf)

    trials = await find_knee(measure, p99_ms=p99_ms, high_per_s=220.0, tolerance=0.02)
    best = knee(trials, p99_ms)
    assert best is not None
    exact_per_s = service_per_s - math.log(100) / p99_ms * 1e3
    assert exact_per_s * 0.98 - 1 <= best.rate_per_s <= exact_per_s
    assert len(trials) <= 8


async def test_an_objective_that_nothing_keeps_ends_the_search() -> None:
    async def measure(rate_per_s: float) -> Trial:
        return trial(rate_per_s, 80.0)

    trials = await find_knee(measure, p99_ms=10, high_per_s=100, tolerance=0.05)
    assert knee(trials, 10) is None
    assert 4 <= len(trials) <= 6


def test_a_rate_at_which_requests_are_refused_does_not_hold() -> None:
    assert trial(1, 5.0, ok_share=0.9995).holds(5)
    assert not trial(1, 5.0, ok_share=0.99).holds(5)
    assert not trial(1, math.nan).holds(5)


@pytest.mark.parametrize(
    ("late_ms", "others_cores", "fault"),
    [
        (9.0, 0.2, ""),
        (9.0, math.nan, ""),
        (11.0, 0.0, "the generator fell behind"),
        (9.0, 1.46, "others kept 1.5 cores busy"),
    ],
)
def test_a_trial_of_a_late_generator_or_a_busy_machine_means_nothing(
    made_recording: Callable[..., Recording], late_ms: float, others_cores: float, fault: str
) -> None:
    pool = StreamPool([made_recording([30.0] * 100, late_ms=late_ms)], math.nan)
    found = trial_of(100.0, pool.totals(pool.everything), others_cores=others_cores)
    assert (found.fault, found.valid) == (fault, not fault)


def test_marks_of_a_narrow_axis_are_in_milliseconds() -> None:
    axes = Figure().subplots()
    axes.set_yscale("log")
    axes.set_ylim(20, 300)
    duration_axis(axes.yaxis)
    told = {mark.get_text() for mark in (*axes.get_yticklabels(), *axes.get_yticklabels(minor=True))}
    assert {"20 ms", "100 ms", "200 ms"} <= told
    assert all(text == "" or text.endswith(("ms", " s")) for text in told)


def test_the_command_prints_and_draws_the_knee(
    monkeypatch: pytest.MonkeyPatch, kserve: Any, one_at_a_time: Callable[[float], Any], tmp_path: Path
) -> None:
    @asynccontextmanager
    async def triton(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
        async with kserve(one_at_a_time(0.01)).running() as server:
            yield Target(grpc=server.address)

    monkeypatch.setattr("bench.tuning.capacity_search.triton", triton)
    monkeypatch.setattr("bench.tuning.capacity_search.WARMUP_S", 0.3)
    monkeypatch.setattr("bench.tuning.capacity_search.TOLERANCE", 0.5)
    folder = tmp_path / "models" / "minilm" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder.parent / "config.pbtxt").write_text('name: "minilm"\n')
    arguments = ["minilm", "--p99-ms", "60000", "--target", "triton", "--seconds", "0.5", "--out", str(tmp_path)]
    done = CliRunner().invoke(capacity, [*arguments, "--model-repository", str(folder.parents[1])])
    assert "capacity at p99 <= 60000 ms:" in done.stdout, done.output
    facts = json.loads((tmp_path / "capacity-minilm.json").read_text())
    assert 0 < facts["capacity_per_s"] <= 120
    assert {"fault", "valid", "others_cores"} <= facts["trials"][0].keys()
    assert (tmp_path / "capacity-minilm.png").read_bytes().startswith(b"\x89PNG")


def test_an_unbuilt_model_is_said_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(capacity, ["nothing", "--p99-ms", "5", "--model-repository", str(tmp_path)])
    assert done.exit_code == 1
    assert "make models" in done.stderr
