"""The comparison of the embedded backend with a bare loop, on a tiny model in a real tritonserver."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from bench.backend import backend, make_feed
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
