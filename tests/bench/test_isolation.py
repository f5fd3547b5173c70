"""The whole scenario through its command, on servers in this process."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from click.testing import CliRunner

from bench.cli import bench
from bench.plan import PHASES, Kind
from bench.target import Target


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "minilm"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"onnx")
    (folder / "config.pbtxt").write_text('name: "minilm"\ndynamic_batching { }\n')
    return folder.parent


@pytest.fixture
def started(
    monkeypatch: pytest.MonkeyPatch, kserve: Any, one_at_a_time: Callable[[float], Any]
) -> list[tuple[str, Path]]:
    """Fake servers in place of the real ones; the list is what was started, in order."""
    import os

    servers: list[tuple[str, Path]] = []

    @asynccontextmanager
    async def triton(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
        servers.append((log.stem, model_repository))
        async with kserve(one_at_a_time(0.004)).running() as server:
            yield Target(grpc=server.address)

    @asynccontextmanager
    async def fairlane(model_repository: Path, config: Path, *, log: Path) -> AsyncIterator[Target]:
        assert config.name == "isolation.yaml"
        servers.append((log.stem, model_repository))

        async def refuse_background(context: grpc.aio.ServicerContext) -> None:
            if ("x-priority", "background") in (context.invocation_metadata() or ()):
                context.set_trailing_metadata((("grpc-retry-pushback-ms", "100"),))
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

        async with kserve(refuse_background).running() as server:
            yield Target(grpc=server.address, scheduler_pid=os.getpid())

    monkeypatch.setattr("bench.isolation.triton", triton)
    monkeypatch.setattr("bench.isolation.fairlane", fairlane)
    monkeypatch.setattr("bench.isolation.CAPACITY_S", 0.4)
    monkeypatch.setattr("bench.isolation.CAPACITY_FILL_S", 0.1)
    return servers


def test_the_command_runs_every_phase_and_leaves_its_files(
    models: Path, started: list[tuple[str, Path]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["isolation", "--seconds", "0.6", "--warmup", "0", "--out", str(out)]
    run = CliRunner().invoke(bench, [*arguments, "--model-repository", str(models), "--json", "--check"])
    facts = json.loads(run.stdout)
    assert run.exit_code == 1  # nothing of the flood was answered: the throughput verdict fails
    assert not {one["name"]: one["passed"] for one in facts["verdicts"]}["throughput"]
    assert [name for name, _ in started] == ["capacity-before", *(phase.name for phase in PHASES), "capacity-after"]
    assert facts == json.loads((out / "isolation.json").read_text())
    assert (out / "isolation.png").exists()
    flooded = facts["phases"]["fairlane-flood"]
    assert flooded["streams"]["background"]["refused"] == flooded["streams"]["background"]["n"] > 0
    assert flooded["streams"]["background"]["refused_without_pushback"] == 0
    assert flooded["scheduler"]["rss_mib"]
    repositories = dict(started)
    assert repositories[f"{Kind.TRITON}-flood"] == repositories["fairlane-flood"]
    assert repositories["priorities-flood"] != repositories["fairlane-flood"]


def test_unbuilt_models_are_said_in_one_line(tmp_path: Path) -> None:
    run = CliRunner().invoke(bench, ["isolation", "--model-repository", str(tmp_path), "--out", str(tmp_path / "o")])
    assert run.exit_code == 1
    assert "run `make models` first" in run.stderr
