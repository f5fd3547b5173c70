"""The comparison of the embedded backend with a bare loop, on a tiny model in a real tritonserver."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.backend import Comparison, Side, backend, make_feed
from bench.bare import Bare, BareError
from export.config import parse_config
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


def test_ratio_is_of_the_rounds_and_not_of_the_medians() -> None:
    rounds = [
        (Side(rows_per_s=bare, cpu_us_per_row=10), Side(rows_per_s=triton, cpu_us_per_row=cpu_us))
        for bare, triton, cpu_us in ((100, 90, 11), (50, 50, 12), (200, 160, 13))
    ]
    one = Comparison.of(4, rounds, 0.1)
    assert (one.bare, one.triton, one.ratio, one.ratio_low, one.ratio_high) == (100, 90, 0.9, 0.8, 1.0)
    assert (one.bare_cpu_us, one.triton_cpu_us) == (10, 12)


async def test_loop_that_cannot_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    async with Bare(tmp_path / "model.onnx", 1) as bare:
        with pytest.raises(BareError, match=r"model\.onnx"):
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
