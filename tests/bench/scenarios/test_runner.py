"""Whole scenarios through the command, on servers in this process."""

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from click.testing import CliRunner, Result

from bench.cli import bench
from bench.targets.target import Target
from bench.terminal.exit_code import INVALID


def read(path: Path) -> str:
    return path.read_text()


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
) -> list[tuple[str, str]]:
    """Fake servers in place of the real ones; the list is what was started, in order: kind and log."""
    servers: list[tuple[str, str]] = []

    @asynccontextmanager
    async def triton(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
        servers.append((model_repository.name, log.stem))
        async with kserve(one_at_a_time(0.004)).running() as server:
            yield Target(grpc=server.address)

    @asynccontextmanager
    async def fairlane(model_repository: Path, config: Path, *, log: Path) -> AsyncIterator[Target]:
        assert yaml.safe_load(read(config)) == {"tenants": {"default": {"weight": 2}}}
        servers.append((model_repository.name, log.stem))

        async def refuse_background(context: grpc.aio.ServicerContext) -> None:
            if ("x-priority", "background") in (context.invocation_metadata() or ()):
                context.set_trailing_metadata((("grpc-retry-pushback-ms", "100"),))
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

        async with kserve(refuse_background).running() as server:
            yield Target(grpc=server.address, hop_pid=os.getpid())

    monkeypatch.setattr("bench.scenarios.runner.triton", triton)
    monkeypatch.setattr("bench.scenarios.runner.fairlane", fairlane)
    monkeypatch.setattr("bench.scenarios.runner.CALIBRATION_S", 0.3)
    monkeypatch.setattr("bench.scenarios.runner.SETTLE_S", 0.0)
    return servers


@pytest.fixture
def run(definition: dict[str, Any], models: Path, tmp_path: Path) -> Callable[..., Result]:
    """Run the scenario, as changed, through the command."""

    def invoke(*flags: str, **changes: Any) -> Result:
        definition["warmup_s"] = 0
        definition["others_cores_bound"] = None  # tests share their machine
        definition["fairlane"] = {"tenants": {"default": {"weight": 2}}}
        targets = changes.setdefault("targets", ["triton", "triton-priorities", "fairlane"])
        definition["phases"]["alone"]["targets"] = [each for each in ("triton", "fairlane") if each in targets]
        for phase in definition["phases"].values():
            phase["seconds"] = 0.4
        definition["streams"]["interactive"]["lateness_p99_bound_ms"] = 1000
        definition["streams"]["flood"]["grace_s"] = 0.2  # it is never answered in full, however long one waits
        definition.update(changes)
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(definition))
        arguments = [str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"), "--model-repository", str(models)]
        return CliRunner().invoke(bench, [*arguments, *flags])

    return invoke


def test_every_round_visits_every_target_in_an_order_that_rotates(
    run: Callable[..., Result], started: list[tuple[str, str]], tmp_path: Path
) -> None:
    done = run("--json", "--check")
    facts = json.loads(done.stdout)
    assert done.exit_code == 1, done.stderr  # nothing of the flood was answered: the throughput verdict fails
    assert not {one["name"]: one["passed"] for one in facts["verdicts"]}["throughput"]
    assert started == [
        ("plain", "calibration"),
        ("plain", "triton-alone"), ("priorities", "triton-priorities-flood"), ("plain", "fairlane-alone"),
        ("priorities", "triton-priorities-flood"), ("plain", "fairlane-alone"), ("plain", "triton-alone"),
    ]  # fmt: skip
    assert facts == json.loads((tmp_path / "out" / "mine" / "mine.json").read_text())
    assert {path.suffix for path in (tmp_path / "out" / "mine").glob("mine.*")} == {".json", ".html", ".png"}
    metrics = facts["metrics"]
    assert len(metrics["fairlane.flood.interactive.p99_ms"]["rounds"]) == 2
    # Targets of one round get the same arrivals, rounds get others.
    rounds = {cell: metrics[f"{cell}.flood.interactive.requests"]["rounds"] for cell in ("triton", "fairlane")}
    bursts = {cell: metrics[f"{cell}.flood.flood.requests"]["rounds"] for cell in ("triton", "fairlane")}
    assert rounds["triton"] == rounds["fairlane"]
    assert bursts["triton"] == bursts["fairlane"]
    assert (rounds["triton"], bursts["triton"]) != (rounds["triton"][::-1], bursts["triton"][::-1])
    # A busy machine may leave some of the refusals unread when the grace is over.
    flood = {name: metrics[f"fairlane.flood.flood.{name}"]["value"] for name in ("requests", "refused", "unanswered")}
    assert flood["refused"] + flood["unanswered"] == flood["requests"]
    assert flood["refused"] > 0
    assert metrics["fairlane.flood.flood.refused_without_pushback"]["value"] == 0
    assert metrics["triton.flood.flood.batch_rows"]["value"] == pytest.approx(2, abs=0.5)
    assert metrics["triton.flood.flood.offered_per_s"]["value"] > facts["capacity_per_s"]["flood"]


def test_a_phase_that_asks_for_it_gets_a_fresh_server(
    run: Callable[..., Result], started: list[tuple[str, str]], definition: dict[str, Any]
) -> None:
    definition["phases"]["flood"]["fresh"] = True
    assert run("--rounds", "1", targets=["triton"], verdicts={}).exit_code == 0
    assert [log for _, log in started[1:]] == ["triton-alone", "triton-flood"]


def test_a_run_that_was_not_valid_has_its_own_exit_code(
    run: Callable[..., Result], started: list[tuple[str, str]], definition: dict[str, Any]
) -> None:
    definition["streams"]["flood"]["max_outstanding"] = 1
    done = run("--rounds", "1", targets=["triton"], verdicts={})
    assert done.exit_code == INVALID
    assert "INVALID  triton.flood.flood: the bound on outstanding requests was hit" in done.stdout


def test_a_wrong_scenario_is_said_in_its_own_words(run: Callable[..., Result]) -> None:
    done = run(rounds=0)
    assert done.exit_code == 1
    assert "rounds: Input should be greater than 0, got 0" in done.stderr


def test_unbuilt_models_are_said_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    done = CliRunner().invoke(bench, ["isolation", "--model-repository", str(folder), "--out", str(tmp_path / "o")])
    assert done.exit_code == 1
    assert "run `make models` first" in done.stderr


def test_scenarios_are_listed_with_their_length() -> None:
    done = CliRunner().invoke(bench, ["--list"])
    assert done.exit_code == 0
    assert "isolation " in done.stdout
    assert " min " in done.stdout
