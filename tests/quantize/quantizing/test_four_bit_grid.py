from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.graph.onnx_graph import write_graph
from export.inference.session import open_session
from quantize.quantizing.block_products import BLOCK
from quantize.quantizing.four_bit_grid import _steps_and_rests, on_grid, quantize_on_grid
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import WeightOnly
from tests.quantize.quantizing.product_graphs import feed, graph_of


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


@pytest.mark.parametrize("value", [0.25, -0.25, 0.0, 100.0])
def test_constant_blocks_stay_as_they_are(tmp_path: Path, value: float) -> None:
    matrix = np.full((64, 8), 0.25, np.float32)
    matrix[:32] = value
    model = graph_of(matrix)
    assert on_grid(model, ["product0"]) == ("product0",)
    quantize_on_grid(model, ["product0"])
    write_graph(model, tmp_path / "model.onnx")
    # One row of x of weight 1: one row of the matrix, which the kernel rounds no further.
    x = np.zeros((1, 1, 64), np.float32)
    for row in (0, 40):
        x[:] = 0
        x[..., row] = 1
        np.testing.assert_allclose(open_session(tmp_path / "model.onnx").run({"x": x})[0, 0], matrix[row], rtol=1e-6)


def test_matrix_with_a_block_of_one_sign_whose_rest_would_be_rounded_coarsely_is_not_kept() -> None:
    matrix = gridded(1024, 8)
    assert on_grid(graph_of(matrix), ["product0"]) == ("product0",)
    # All of a column's first block above 0, by 30 to 45 of its steps.
    first = matrix[:BLOCK, 0]
    step = (first.max() - first.min()) / 15
    matrix[:BLOCK, 0] = first - first.min() + 30 * step
    assert on_grid(graph_of(matrix), ["product0"]) == ()


def test_block_of_one_sign_beside_coarser_ones_is_kept_as_closely_as_those() -> None:
    matrix = gridded(1024, 8)
    # Its rest is 4 of its steps, and less than half of one of those beside it.
    fine = np.arange(BLOCK) % 16 * 1e-4
    matrix[:BLOCK, 0] = fine + 4e-4
    assert on_grid(graph_of(matrix), ["product0"]) == ("product0",)
    main, below = _steps_and_rests(matrix)
    rests = (below.scales * (below.steps - below.zeros)).reshape(-1, 8)[: 1024 // BLOCK]
    kept = (main.scales * (main.steps - main.zeros) + rests[:, None]).reshape(1024, 8)
    coarsest = np.ptp(matrix.reshape(-1, BLOCK, 8), axis=1).max(axis=0) / 15
    assert (np.abs(kept - matrix).max(axis=0) <= coarsest / 28 * 1.01).all()


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
