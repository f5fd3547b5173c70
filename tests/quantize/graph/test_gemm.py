"""Dynamic quantization of graphs with a table and a Gemm."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.onnx_graph import IR_VERSION, OPSET, write_graph
from export.inference.session import open_session
from quantize.quantizing.quantizer import quantize_graph
from quantize.recipe import Dynamic

WORDS, WIDE = 500, 32
node = helper.make_node


def matrix(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def graph(nodes: list[onnx.NodeProto], classes: int, **constants: Any) -> onnx.ModelProto:
    """Words looked up in a table `t`, their mean `m` FP32 [batch, 32], and some nodes that make `y` of it."""
    first = [
        node("Gather", ["t", "ids"], ["e"], "table"),
        node("ReduceMean", ["e", "middle"], ["m"], "mean", keepdims=0),
    ]
    named = {"t": matrix(WORDS, WIDE), "middle": np.array([1]), **constants}
    made = helper.make_graph(
        [*first, *nodes],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in named.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    # As exporters write it: with the shape of everything between.
    return onnx.shape_inference.infer_shapes(model)


def classifier() -> onnx.ModelProto:
    return graph([node("Gemm", ["m", "w", "b"], ["y"], "last")], 5, w=matrix(WIDE, 5, seed=1), b=matrix(5))


def transposed() -> onnx.ModelProto:
    """As PyTorch exports a Linear."""
    nodes = [
        node("MatMul", ["m", "v"], ["h"], "hidden"),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "w", "b"], ["y"], "last", transB=1),
    ]
    return graph(nodes, 5, v=matrix(WIDE, WIDE, seed=2), w=matrix(5, WIDE, seed=1), b=matrix(5))


def tied() -> onnx.ModelProto:
    """What looks words up also scores them."""
    return graph([node("Gemm", ["m", "t", "b"], ["y"], "last", transB=1)], WORDS, b=matrix(WORDS))


def called_twice() -> onnx.ModelProto:
    nodes = [
        node("Gemm", ["m", "w", "b"], ["h"], "once", transB=1),
        node("Gemm", ["h", "w"], ["y"], "twice", transB=1),
    ]
    return graph(nodes, WIDE, w=matrix(WIDE, WIDE, seed=1), b=matrix(WIDE))


def both_ways() -> onnx.ModelProto:
    """One matrix, read as it is and transposed, which is square."""
    nodes = [node("Gemm", ["m", "w", "b"], ["h"], "there"), node("Gemm", ["h", "w"], ["y"], "back", transB=1)]
    return graph(nodes, WIDE, w=matrix(WIDE, WIDE, seed=1), b=matrix(WIDE))


def scaled() -> onnx.ModelProto:
    nodes = [node("Gemm", ["m", "w", "b"], ["y"], "last", alpha=0.5, beta=2.0, transB=1)]
    return graph(nodes, 5, w=matrix(5, WIDE, seed=1), b=matrix(5))


def with_a_bias_of_the_request() -> onnx.ModelProto:
    nodes = [
        node("ReduceSum", ["m", "middle"], ["s"], keepdims=1),
        node("Gemm", ["m", "w", "s"], ["y"], "last", transB=1),
    ]
    return graph(nodes, 5, w=matrix(5, WIDE, seed=1))


@pytest.mark.parametrize(
    "made", [classifier, transposed, tied, called_twice, both_ways, scaled, with_a_bias_of_the_request]
)
@pytest.mark.parametrize("exclude", [(), ("table",)])
def test_table_and_gemm_are_quantized_dynamically(tmp_path: Path, made: Any, exclude: tuple[str, ...]) -> None:
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    write_graph(made(), fp32)
    quantize_graph(Dynamic(exclude=exclude), lambda: iter(()), fp32, int8)
    feed = {"ids": np.random.default_rng(3).integers(0, WORDS, (8, 6))}
    expected, got = open_session(fp32).run(feed), open_session(int8).run(feed)
    assert np.abs(got - expected).max() < 0.03 * np.abs(expected).max()
    nodes = [one.op_type for one in onnx.load(int8).graph.node]
    assert "MatMulInteger" in nodes
    assert "Gemm" not in nodes


def test_gemm_that_is_left_out_keeps_the_table_as_it_is(tmp_path: Path) -> None:
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    write_graph(tied(), fp32)
    quantize_graph(Dynamic(exclude=("last",)), lambda: iter(()), fp32, int8)
    feed = {"ids": np.random.default_rng(3).integers(0, WORDS, (8, 6))}
    expected, got = open_session(fp32).run(feed), open_session(int8).run(feed)
    assert np.abs(got - expected).max() < 0.03 * np.abs(expected).max()
