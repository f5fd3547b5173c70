from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.graph import write_graph
from export.session import open_session
from quantize.blocks import BLOCK
from quantize.grid import on_grid, quantize_on_grid
from quantize.quantizer import quantize_graph
from quantize.recipe import WeightOnly
from tests.quantize.products import feed, graph_of


def gridded(rows: int, columns: int, seed: int = 3) -> Any:
    """Weights as GGUF's Q4_1 has them, FP32 [rows, columns]: both ends of each block's grid are in use."""
    random = np.random.default_rng(seed)
    blocks = rows // BLOCK
    steps = random.integers(0, 16, (blocks, BLOCK, columns)).astype(np.float32)
    steps[:, :2] = [[0], [15]]
    step = random.uniform(0.01, 0.03, (blocks, 1, columns)).astype(np.float32)
    least = -step * random.uniform(3, 12, (blocks, 1, columns)).astype(np.float32)
    return (steps * step + least).reshape(rows, columns)


def test_only_matrices_on_a_grid_are_found() -> None:
    free = np.random.default_rng(1).normal(0, 1, (64, 8)).astype(np.float32)
    model = graph_of(gridded(64, 8), free)
    assert on_grid(model, ["product0", "product1"]) == ("product0",)
    assert on_grid(model, ["product1"]) == ()


def test_rows_that_fill_no_block_are_on_no_grid() -> None:
    assert on_grid(graph_of(gridded(64, 8)[:40]), ["product0"]) == ()


def test_constant_weights_are_on_a_grid() -> None:
    assert on_grid(graph_of(np.full((64, 8), 0.25, np.float32)), ["product0"]) == ("product0",)


# 18 and 48 blocks as in smollm2: the rests end within a block of their own.
@pytest.mark.parametrize("rows", [64, 576, 1536])
def test_grid_is_kept_where_rounding_to_a_zero_point_would_lose_it(tmp_path: Path, rows: int) -> None:
    model = graph_of(gridded(rows, 16))
    write_graph(model, tmp_path / "fp32.onnx")
    expected = open_session(tmp_path / "fp32.onnx").run(feed(rows))
    quantize_graph(WeightOnly(keep_grid=True), lambda: (), tmp_path / "fp32.onnx", tmp_path / "grid.onnx")
    quantize_graph(WeightOnly(bits=4), lambda: (), tmp_path / "fp32.onnx", tmp_path / "rounded.onnx")
    kept, rounded = (
        np.abs(open_session(tmp_path / f"{name}.onnx").run(feed(rows)) - expected).mean()
        for name in ("grid", "rounded")
    )
    assert kept < rounded / 5
    assert kept < np.abs(expected).mean() * 0.01


def test_column_of_zeros_stays_zero(tmp_path: Path) -> None:
    matrix = gridded(64, 8)
    matrix[:, 3] = 0
    model = graph_of(matrix)
    quantize_on_grid(model, ["product0"])
    write_graph(model, tmp_path / "model.onnx")
    assert not open_session(tmp_path / "model.onnx").run(feed(64))[..., 3].any()


def test_products_of_one_activation_share_its_sums(tmp_path: Path) -> None:
    model = graph_of(gridded(64, 8), gridded(64, 24, seed=4))
    quantize_on_grid(model, ["product0", "product1"])
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["MatMul", "Concat", "MatMulNBits", "MatMulNBits"]
    write_graph(model, tmp_path / "model.onnx")
    assert np.isfinite(open_session(tmp_path / "model.onnx").run(feed(64))).all()
