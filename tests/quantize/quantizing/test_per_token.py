"""The arithmetic of quantize/quantizing/per_token.py against its own formula in numpy."""

from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.definition.tensor import FloatArray
from export.graph.onnx_graph import IR_VERSION, OPSET, GraphError, write_graph
from export.inference.session import open_session
from quantize.quantizing.per_token import GELU_ZERO, columns_s8, quantize_per_token, token_grid
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import PerToken

WIDE, NARROW = 24, 8
gelu = np.vectorize(lambda value: value * (1 + erf(value / 2**0.5)) / 2)


def constants(seed: int = 3) -> dict[str, FloatArray]:
    random = np.random.default_rng(seed)
    shapes = {"up": (NARROW, WIDE), "up_b": (WIDE,), "down": (WIDE, NARROW), "down_b": (NARROW,)}
    return {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()} | {
        "gain": np.ones(NARROW, np.float32),
        "shift": np.zeros(NARROW, np.float32),
    }


def feed_forward(activation: str = "Gelu", opset: int = OPSET) -> onnx.ModelProto:
    """A transformer's feed-forward part: y = norm(x + act(x up + up_b) down + down_b), x [batch, sequence, 8]."""
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"], "ffn_up"),
        helper.make_node("Add", ["a", "up_b"], ["b"], "up_bias"),
        helper.make_node(activation, ["b"], ["c"], "activation"),
        helper.make_node("MatMul", ["c", "down"], ["d"], "ffn_down"),
        helper.make_node("Add", ["d", "down_b"], ["e"], "down_bias"),
        helper.make_node("Add", ["e", "x"], ["f"], "residual"),
        helper.make_node("LayerNormalization", ["f", "gain", "shift"], ["y"], "norm"),
    ]
    shape = ["batch", "sequence", NARROW]
    graph = helper.make_graph(
        nodes,
        "ffn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants().items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def tokens(seed: int, *shape: int) -> FloatArray:
    """Tokens of very different reach, as GELU's tail makes them."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 1, (*shape, NARROW)) * random.uniform(0.01, 20, (*shape, 1))).astype(np.float32)


def quantized(tmp_path: Path, model: onnx.ModelProto, *exclude: str) -> Path:
    write_graph(model, tmp_path / "fp32.onnx")
    calibration = [{"x": tokens(seed, 2, 5)} for seed in range(8)]
    quantize_graph(PerToken(exclude=exclude), lambda: calibration, tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    return tmp_path / "int8.onnx"


def by_hand(x: FloatArray) -> Any:
    """The formula of the module's docstring, with the up product left in floating point."""
    c = constants()
    hidden = gelu(x @ c["up"] + c["up_b"])
    step = np.maximum(hidden.max(axis=-1, keepdims=True) / (255 - GELU_ZERO), 0.1701 / GELU_ZERO)
    steps = np.clip(np.round(hidden / step) + GELU_ZERO, 0, 255)
    weights, scale = columns_s8(c["down"])
    f = x + step * scale * ((steps - GELU_ZERO) @ weights.astype(np.float64)) + c["down_b"]
    centred = f - f.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def test_graph_computes_the_formula(tmp_path: Path) -> None:
    session = open_session(quantized(tmp_path, feed_forward(), "ffn_up"))
    x = tokens(20, 3, 7)
    # A value that lies between two steps may be rounded the other way: float32 here, float64 by hand.
    assert np.quantile(np.abs(session.run({"x": x}) - by_hand(x)), 0.9) < 1e-5
    assert np.abs(session.run({"x": x}) - by_hand(x)).max() < 0.02


def test_graph_is_as_close_to_fp32_as_eight_bits_allow(tmp_path: Path) -> None:
    int8 = open_session(quantized(tmp_path, feed_forward()))
    x = tokens(21, 4, 6)
    difference = np.abs(int8.run({"x": x}) - open_session(tmp_path / "fp32.onnx").run({"x": x}))
    assert 0 < difference.mean() < 0.02


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40))
def test_no_value_behind_gelu_is_clipped_and_the_error_is_half_a_step(values: list[float]) -> None:
    x = gelu(np.array(values))
    zero, floor = token_grid("Gelu")
    step = max(x.max() / (255 - zero), floor)
    steps = np.round(x / step) + zero
    assert steps.min() >= 0
    assert steps.max() <= 255
    assert np.abs((steps - zero) * step - x).max() <= step / 2 * (1 + 1e-9)


@pytest.mark.parametrize("activation", ["Gelu", "Relu"])
def test_token_is_untouched_by_others_bit_for_bit(tmp_path: Path, activation: str) -> None:
    session = open_session(quantized(tmp_path, feed_forward(activation)))
    together = tokens(22, 6, 3)
    together[0] *= 1e4
    alone = np.concatenate([session.run({"x": together[row : row + 1]}) for row in range(6)])
    assert np.array_equal(session.run({"x": together}), alone)


def test_token_of_zeros_behind_relu_is_finite(tmp_path: Path) -> None:
    session = open_session(quantized(tmp_path, feed_forward("Relu")))
    assert np.isfinite(session.run({"x": np.zeros((2, 3, NARROW), np.float32)})).all()


def test_bias_is_fused_weights_are_s8_and_no_fp32_matrix_is_left(tmp_path: Path) -> None:
    graph = onnx.load(quantized(tmp_path, feed_forward())).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulIntegerToFloat") == 2
    assert operators.count("MatMul") == 0
    # down's bias is added after the token's scale; the residual became a Sum, which is not fused into a slow kernel.
    assert (operators.count("Add"), operators.count("Sum")) == (1, 1)
    wide = [one for one in graph.initializer if len(one.dims) == 2]
    assert {one.data_type for one in wide} == {TensorProto.INT8}


def test_large_table_is_looked_up_in_s8_rows(tmp_path: Path) -> None:
    table = np.random.default_rng(5).normal(0, 1, (40_000, NARROW)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"], "lookup")],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", NARROW])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    ids = np.array([[0, 39_999], [7, 7]])
    got = open_session(quantized(tmp_path, model)).run({"ids": ids})
    steps, scale = columns_s8(table, axis=1)
    assert np.array_equal(got, steps[ids].astype(np.float32) * scale[ids][..., np.newaxis])


def test_graph_of_an_old_opset_is_refused_in_words() -> None:
    with pytest.raises(GraphError, match="expected a graph of opset 18 or newer, got 17"):
        quantize_per_token(feed_forward(opset=17), ["ffn_down"], {})
