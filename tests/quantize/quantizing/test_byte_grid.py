from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.graph.container_support import too_new
from export.graph.onnx_graph import write_graph
from export.inference.session import open_session
from quantize.quantizing.block_products import BLOCK
from quantize.quantizing.byte_grid import on_byte_grid, quantize_on_byte_grid
from quantize.quantizing.four_bit_grid import on_grid
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import WeightOnly
from tests.quantize.quantizing.product_graphs import feed, graph_of


def gridded(rows: int, columns: int) -> Any:
    """Weights as GGUF's Q8_0 has them, FP32 [rows, columns]: one end of each block's grid is in use."""
    random = np.random.default_rng(3)
    steps = random.integers(-127, 128, (rows // BLOCK, BLOCK, columns)).astype(np.float32)
    steps[:, 0] = random.choice([-127, 127], steps[:, 0].shape)
    # Of half precision, as they are in a file.
    step = random.uniform(0.001, 0.003, (rows // BLOCK, 1, columns)).astype(np.float16).astype(np.float32)
    return (steps * step).reshape(rows, columns)


def whole(width: int) -> dict[str, Any]:
    """Activations that the kernel's rounding leaves as they are: whole, and with a 127 in each block."""
    values = np.random.default_rng(5).integers(-127, 128, (2, 3, width)).astype(np.float32)
    values[..., ::BLOCK] = 127
    return {"x": values}


def test_only_matrices_on_a_grid_of_8_bits_are_found() -> None:
    free = np.random.default_rng(1).normal(0, 1, (64, 8)).astype(np.float32)
    model = graph_of(gridded(64, 8), free)
    assert on_byte_grid(model, ["product0", "product1"]) == ("product0",)
    assert on_byte_grid(model, ["product1"]) == ()
    assert on_grid(model, ["product0"]) == ()


def test_rows_that_fill_no_block_are_on_no_grid() -> None:
    assert on_byte_grid(graph_of(gridded(64, 8)[:40]), ["product0"]) == ()


def test_column_of_zeros_is_on_the_grid_and_stays_zero(tmp_path: Path) -> None:
    matrix = gridded(64, 8)
    matrix[:, 3] = 0
    model = graph_of(matrix)
    assert on_byte_grid(model, ["product0"]) == ("product0",)
    quantize_on_byte_grid(model, ["product0"])
    write_graph(model, tmp_path / "model.onnx")
    assert not open_session(tmp_path / "model.onnx").run(feed(64))[..., 3].any()


# 18 blocks as in smollm2, and a number that is not even: two blocks' zero points share a byte.
@pytest.mark.parametrize("rows", [32, 96, 576])
def test_nothing_is_lost_of_the_weights(tmp_path: Path, rows: int) -> None:
    matrix = gridded(rows, 16)
    write_graph(graph_of(matrix), tmp_path / "fp32.onnx")
    quantize_graph(WeightOnly(keep_grid=True), lambda: (), tmp_path / "fp32.onnx", tmp_path / "halves.onnx")
    quantize_graph(WeightOnly(bits=8), lambda: (), tmp_path / "fp32.onnx", tmp_path / "eight.onnx")
    expected = whole(rows)["x"].astype(np.float64) @ matrix
    kept, rounded = (
        np.abs(open_session(tmp_path / f"{name}.onnx").run(whole(rows)) - expected).max()
        for name in ("halves", "eight")
    )
    assert kept < np.abs(expected).max() * 1e-6
    assert kept < rounded / 100


def test_container_loads_it_and_the_steps_take_no_more_than_8_bits(tmp_path: Path) -> None:
    write_graph(graph_of(gridded(576, 64)), tmp_path / "fp32.onnx")
    quantize_graph(WeightOnly(keep_grid=True), lambda: (), tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    assert too_new(model) == ()
    steps = [one for one in model.graph.initializer if one.data_type == TensorProto.UINT8 and len(one.dims) > 1]
    assert [len(one.raw_data) for one in steps] == [576 * 64]


def test_products_of_one_activation_share_its_copy(tmp_path: Path) -> None:
    model = graph_of(gridded(64, 8), gridded(64, 24))
    quantize_on_byte_grid(model, ["product0", "product1"])
    assert [node.op_type for node in model.graph.node] == ["Concat", "MatMulNBits", "MatMulNBits"]
    write_graph(model, tmp_path / "model.onnx")
    assert np.isfinite(open_session(tmp_path / "model.onnx").run(feed(64))).all()
