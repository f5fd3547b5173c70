"""The comparison of the embedded backend with a bare loop, on a tiny model in a real tritonserver."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as triton_client
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table

from bench.backend.cli import backend, cpu_table, wall_table
from bench.backend.comparison import Comparison, Round, Shape, Side
from bench.backend.identity import add_identity
from bench.backend.measure import Plan, make_feed
from bench.backend.onnxruntime_loop import BareLoop, BareLoopError
from export.configuration.model_config import parse_config
from scheduler.triton.launcher import EmbeddedTriton
from tests.real_triton import ModelRepository


def test_both_sides_run_the_same_batches(models: ModelRepository) -> None:
    models.add_arithmetic()
    flags = ["--model", "arithmetic", "--model-repository", str(models.path), "--seconds", "0.1", "--rounds", "1"]
    result = CliRunner().invoke(backend, [*flags, "--batch", "1", "--batch", "8", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["rows"] for row in rows] == [1, 8]
    assert all(row["bare"] > 0 and row["ratio"] == pytest.approx(row["triton"] / row["bare"]) for row in rows)
    assert all(row["triton_cpu_us"] >= 0 and row["others_cores"] >= 0 for row in rows)
    assert all(row["identity"] > 0 for row in rows)
    one = rows[0]
    assert one["backend_ratio"] == pytest.approx(one["triton"] * (1 / one["bare"] + 1 / one["identity"]))


def test_request_that_the_model_refuses_is_said_in_one_line(models: ModelRepository) -> None:
    models.add_identity("short", "FP32", rows=2)
    flags = ["--model", "short", "--model-repository", str(models.path), "--seconds", "0.1", "--rounds", "1"]
    result = CliRunner().invoke(backend, [*flags, "--batch", "8"])
    assert result.exit_code == 1
    assert "short: Triton refused" in result.stderr
    assert "<= 2" in result.stderr


async def test_identity_model_answers_with_outputs_of_the_models_size(tmp_path: Path) -> None:
    text = (
        'name: "tiny" backend: "onnxruntime" max_batch_size: 4 instance_group { count: 1 kind: KIND_CPU }'
        'input { name: "ids" data_type: TYPE_INT64 dims: [-1] }'
        'output [{ name: "wide" data_type: TYPE_FP32 dims: [-1, 2] label_filename: "names.txt" }, '
        '{ name: "whole" data_type: TYPE_INT32 dims: [3] }]'
    )
    name = add_identity(tmp_path, parse_config(text, "tiny"), 5)
    triton = EmbeddedTriton(tmp_path)
    try:
        address = await triton.start()
        async with triton_client.InferenceServerClient(address.grpc) as client:
            ids = triton_client.InferInput("ids", [2, 7], "INT64")
            ids.set_data_from_numpy(np.zeros((2, 7), np.int64))
            answer = await client.infer(name, [ids])
        found = {output: answer.as_numpy(output) for output in ("wide", "whole")}
    finally:
        await triton.stop(grace_s=0.0)
    assert {output: (value.shape, value.dtype.name) for output, value in found.items()} == {
        "wide": ((2, 5, 2), "float32"),
        "whole": ((2, 3), "int32"),
    }


def plan_of(repository: Path, dims: str) -> Plan:
    folder = repository / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    text = f'name: "tiny" max_batch_size: 8 input {{ name: "x" data_type: TYPE_FP32 dims: {dims} }}'
    folder.with_name("config.pbtxt").write_text(text)
    return Plan(repository=repository, model="tiny", batches=(1, 8), sizes=(32, 128), seconds=2.0, rounds=3, cpus=None)


def test_every_batch_size_is_measured_at_every_length(tmp_path: Path) -> None:
    assert plan_of(tmp_path, "[-1]").shapes() == [(1, 32), (8, 32), (1, 128), (8, 128)]


def test_model_without_an_axis_that_varies_is_measured_at_one_length(tmp_path: Path) -> None:
    assert plan_of(tmp_path, "[64]").shapes() == [(1, 32), (8, 32)]


def test_model_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(backend, ["--model", "none", "--model-repository", str(tmp_path)])
    assert result.exit_code == 1
    assert f"Error: {tmp_path}/none holds no built model" in result.stderr


def round_of(bare: int, identity: int, triton: int, cpu_us: tuple[float, float, float]) -> Round:
    sides = (
        Side(rows=10 * rate, wall_s=10.0, cpu_s=10 * rate * cpu / 1e6)
        for rate, cpu in zip((bare, identity, triton), cpu_us, strict=True)
    )
    return Round(**dict(zip(("bare", "identity", "triton"), sides, strict=True)))


ROUNDS = [
    round_of(100, 400, 90, (10, 1, 11)),
    round_of(50, 100, 50, (10, 2, 16)),
    round_of(200, 800, 128, (10, 1, 22)),
]


def test_turns_add_up() -> None:
    both = Side(rows=30, wall_s=1.0, cpu_s=0.5) + Side(rows=10, wall_s=3.0, cpu_s=0.1)
    assert (both.rows_per_s, both.cpu_us_per_row) == (10, pytest.approx(15_000))


def test_ratio_is_of_the_rounds_and_not_of_the_medians() -> None:
    one = Comparison.of(Shape(4, 16), ROUNDS, 0.1)
    assert (one.bare, one.identity, one.triton) == (100, 400, 90)
    assert (one.ratio, one.ratio_low, one.ratio_high) == (0.9, 0.64, 1.0)
    assert (one.bare_cpu_us, one.identity_cpu_us, one.triton_cpu_us) == (10, 1, 16)


def test_backend_answers_for_what_is_beyond_the_loop_and_the_identity_model() -> None:
    one = Comparison.of(Shape(4, 16), ROUNDS, 0.1)
    # A row alone takes 1/100 + 1/400 s, in Triton 1/90: 1.125; the others 1.5 and 0.8.
    assert one.backend_ratio == pytest.approx(1.125)
    assert one.backend_cpu_ratio == pytest.approx(12 / 16)


def test_tables_show_both_ratios_and_whose_the_time_is() -> None:
    def cells(table: Table) -> list[str]:
        console = Console(width=120, record=True, file=io.StringIO())
        console.print(table)
        (line,) = [line for line in console.export_text().splitlines() if " 4x16 " in line]
        return [cell.strip() for cell in line.strip("│ ").split("│")]

    found = [Comparison.of(Shape(4, 16), ROUNDS, 0.1)]
    assert cells(wall_table("tiny", found)) == ["4x16", "100", "400", "90", "0.90", "0.64", "1.00", "1.12", "0.10"]
    assert cells(cpu_table("tiny", found)) == ["4x16", "10", "1", "16", "0.75"]


async def test_loop_that_cannot_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    async with BareLoop(tmp_path / "model.onnx", 1, os.sched_getaffinity(0)) as bare:
        with pytest.raises(BareLoopError, match=r"model\.onnx"):
            await bare.run(tmp_path / "feed.npz", 0.1)


def test_feed_has_the_types_and_shapes_of_the_configuration() -> None:
    config: Any = parse_config(
        'input [{ name: "ids" data_type: TYPE_INT64 dims: [-1] }, { name: "mask" data_type: TYPE_FP32 dims: [2] }]', "c"
    )
    feed = make_feed(config, 3, 5)
    assert {name: (value.shape, value.dtype.name) for name, value in feed.items()} == {
        "ids": ((3, 5), "int64"),
        "mask": ((3, 2), "float32"),
    }
    assert feed["mask"].min() == feed["mask"].max() == 1
