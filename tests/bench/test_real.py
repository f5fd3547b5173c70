"""The load test against the real tritonserver and the real scheduler, on a model that computes nothing."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
import yaml
from click.testing import CliRunner

from bench.cli import bench
from bench.load.stream import Stream
from bench.measuring.batch_statistics import fetch_batch_statistics
from bench.targets.triton import triton
from bench.tuning.single_stream import run_single_stream
from tests.real_triton import ModelRepository

SERVES = ["-m", "scheduler", "serve"]


def test_smoke_runs_on_triton_a_proxy_and_fairlane(
    models: ModelRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.scenarios.runner.CALIBRATION_S", 1.0)
    models.add_identity("digits", "FP32", dims=[4], extra="dynamic_batching { }")
    arguments = ["smoke", "--out", str(tmp_path), "--model-repository", str(models.path), "--json", "--scale", "0.5"]
    done = CliRunner().invoke(bench, arguments)
    assert done.stdout, done.output
    facts = json.loads(done.stdout)
    metrics = facts["metrics"]
    for target in ("triton", "proxy", "fairlane"):
        assert metrics[f"{target}.both.flood.requests"]["value"] > 0
        assert metrics[f"{target}.both.flood.not_ok"]["value"] == 0
        assert metrics[f"{target}.both.flood.batch_rows"]["value"] >= 1
    for target in ("proxy", "fairlane"):
        assert metrics[f"{target}.both.hop_cpu_us_per_request"]["value"] > 0
    assert facts["triton_version"].startswith("2.")
    assert (tmp_path / "smoke" / "smoke.html").exists()


async def test_sizes_of_batches_are_those_of_all_rows_and_runs(models: ModelRepository, tmp_path: Path) -> None:
    models.add_identity("digits", "FP32", dims=[4], extra="dynamic_batching { }")
    about = {"class": "interactive", "tenant": "t", "model": "digits", "rows": 2, "rate_per_s": 1}
    stream, out = Stream.model_validate(about), tmp_path / "offered.json"
    async with triton(models.path, log=tmp_path / "triton.log") as target:
        await run_single_stream(target.grpc, stream, rate_per_s=None, seconds=0.3, seed=1, out=out)
        found = (await fetch_batch_statistics(target.grpc, ["digits"]))["digits"]
    assert found.runs == found.sizes.total() > 0
    assert found.rows == sum(size * runs for size, runs in found.sizes.items())
    assert min(found.sizes) >= 2


def scheduler_with_triton(parent: psutil.Process) -> bool:
    """Whether a scheduler that the load test started has started its Triton."""
    for each in parent.children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while it is looked at
            if each.cmdline()[1:4] == SERVES:
                return "tritonserver" in {below.name() for below in each.children(recursive=True)}
    return False


async def test_nothing_remains_of_a_killed_load_test(
    models: ModelRepository, tmp_path: Path, eventually: Callable[..., Awaitable[None]]
) -> None:
    models.add_identity("digits", "FP32", dims=[4], extra="dynamic_batching { }")
    scenario = {
        "title": "Until it is killed",
        "targets": ["fairlane"],
        "streams": {"one": {"class": "interactive", "tenant": "t", "model": "digits", "rate_per_s": 10}},
        "phases": {"long": {"streams": ["one"], "seconds": 600}},
    }
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(scenario))
    command = [sys.executable, "-c", "from scheduler.cli import main; main()", "bench", str(path)]
    command += ["--out", str(tmp_path), "--model-repository", str(models.path)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    parent = psutil.Process(process.pid)
    await eventually(lambda: scheduler_with_triton(parent))
    below = parent.children(recursive=True)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await eventually(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in below))
