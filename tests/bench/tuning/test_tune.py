"""`fairlane tune` on the real tritonserver, with a model that computes nothing and runs of a fifth of a second."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.tune import tune
from bench.tuning.setting import Setting, candidates
from export.configuration.model_config import parse_config
from scheduler.cpus import TritonCpus, divide
from scheduler.triton.launcher import EmbeddedTriton, TritonAddress, TritonStartError
from tests.real_triton import ModelRepository

QUICK = ["--p99-ms", "1000", "--seconds", "0.2", "--rounds", "1", "--cores", "1"]


def test_a_real_server_is_measured_with_several_settings_and_a_dry_run_writes_nothing(
    models: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.tuning.successive_halving.TOLERANCE", 0.9)
    monkeypatch.setattr("bench.tuning.setting.BATCH_PARTS", (1, 2))
    monkeypatch.setattr("bench.tuning.trial_server.CLOSED_LOOP_S", 0.2)
    folder = models.add_identity("digits", "FP32", dims=[4], extra="dynamic_batching { }")
    before = (folder / "config.pbtxt").read_text()
    done = CliRunner().invoke(tune, ["digits", *QUICK, "--model-repository", str(models.path), "--dry-run", "--json"])
    assert done.stdout, done.output
    facts = json.loads(done.stdout)
    tried = {tuple(each["setting"].values()) for each in (*facts["rungs"], *facts["finalists"])}
    assert tried == {(1, 1, 8), (1, 1, 4)}
    default = facts["finalists"][0]
    assert Setting(**default["setting"]) == Setting.of(parse_config(before, "digits"))
    assert len(default["capacity_per_s"]) == 1
    assert not facts["written"]
    assert (folder / "config.pbtxt").read_text() == before


def test_model_with_a_small_table_and_a_configuration_without_a_name_is_measured(
    models: ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.tuning.successive_halving.TOLERANCE", 0.9)
    monkeypatch.setattr("bench.tuning.setting.BATCH_PARTS", (1, 2))
    monkeypatch.setattr("bench.tuning.trial_server.CLOSED_LOOP_S", 0.2)
    config = models.add_embedding("embedding") / "config.pbtxt"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("name:")]
    config.write_text("\n".join(lines).replace("dynamic_batching {", "dynamic_batching { preferred_batch_size: [8] "))
    done = CliRunner().invoke(
        tune, ["embedding", *QUICK, "--model-repository", str(models.path), "--dry-run", "--json"]
    )
    assert done.stdout, done.output
    assert json.loads(done.stdout)["finalists"][0]["capacity_per_s"][0] > 0


@pytest.mark.parametrize("flags", [(), ("--all-cpus",)])
def test_server_gets_the_cpus_that_serve_leaves_to_it_and_cores_are_as_many_as_the_models_have(
    models: ModelRepository, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    models.add_identity("digits", "FP32", dims=[4])
    division = None if flags else divide(os.sched_getaffinity(0))
    cores = len(os.sched_getaffinity(0) if division is None else division.triton.models)
    seen: dict[str, object] = {}

    class Recorded(EmbeddedTriton):
        def __init__(self, models: Path, *, cpus: TritonCpus | None) -> None:
            super().__init__(models, cpus=cpus)
            seen["cpus"] = cpus

        async def start(self) -> TritonAddress:
            raise TritonStartError("far enough")

    def recorded(default: Setting, cores: int, rows: int) -> list[Setting]:
        seen["cores"] = cores
        return candidates(default, cores, rows)

    monkeypatch.setattr("bench.tuning.trial_server.EmbeddedTriton", Recorded)
    monkeypatch.setattr("bench.tune.candidates", recorded)
    done = CliRunner().invoke(tune, ["digits", "--p99-ms", "5", "--model-repository", str(models.path), *flags])
    assert "far enough" in done.stderr
    assert seen == {"cpus": division and division.triton, "cores": cores}


def test_an_unbuilt_model_is_said_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(tune, ["nothing", "--p99-ms", "5", "--model-repository", str(tmp_path)])
    assert done.exit_code == 1
    assert "make models" in done.stderr


def test_a_repository_is_looked_for_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model_repository").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "Error: model_repository/mine holds no built model" in CliRunner().invoke(tune, ["mine", *QUICK]).stderr


@pytest.mark.parametrize("flag", ["--p99-ms", "--seconds"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_finite_number_is_refused(models: ModelRepository, flag: str, value: str) -> None:
    line = ["digits", "--p99-ms", "5", flag, value, "--model-repository", str(models.path)]
    done = CliRunner().invoke(tune, line)
    assert (done.exit_code, f"{value} is not a finite number" in done.stderr) == (2, True)


def test_a_model_without_a_batch_axis_is_said_in_one_line(models: ModelRepository) -> None:
    models.add_identity("single", "FP32", rows=0, dims=[4])
    done = CliRunner().invoke(tune, ["single", *QUICK, "--model-repository", str(models.path)])
    assert done.exit_code == 1
    assert "no batch to fill" in done.stderr
