"""Graphs with bodies (If, Loop) that read what recipes rewrite, and with outputs in the middle of what they fuse."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.onnx_graph import IR_VERSION, OPSET, write_graph
from export.inference.cosine import cosine
from export.inference.session import open_session
from quantize.graph.layers import layers
from quantize.quantizing.quantizer import named_graph, quantize_graph
from quantize.recipe import Dynamic, PerToken, Recipe, Static, WeightOnly

WIDE = 32
RECIPES: Sequence[Recipe] = (
    PerToken(),
    PerToken(smooth=0.5),
    Static(operators=("MatMul",)),
    Static(operators=("MatMul",), smooth=0.5),
    Dynamic(),
    WeightOnly(),
    WeightOnly(keep_grid=True, bits=4),
)


def matrix(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def value(name: str, *dims: int | str, of: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, of, dims)


def model(nodes: Sequence[Any], outputs: Sequence[Any], **constants: Any) -> onnx.ModelProto:
    weights = {"w": matrix(1, WIDE, WIDE), "b": matrix(2, WIDE)} | constants
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", "batch", WIDE)],
        outputs,
        [numpy_helper.from_array(np.asarray(one), name) for name, one in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def body(name: str, *nodes: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), name, [], [value(name, "batch", WIDE)])


def branching() -> onnx.ModelProto:
    """Either branch reads the weights of a product outside of it, its bias or its output before the bias."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "product"),
        helper.make_node("Add", ["product", "b"], ["sum"], "bias"),
        helper.make_node("ReduceMax", ["sum"], ["largest"], "largest", keepdims=0),
        helper.make_node("Greater", ["largest", "bound"], ["is_large"], "is_large"),
        helper.make_node(
            "If",
            ["is_large"],
            ["chosen"],
            "if",
            then_branch=body("then", helper.make_node("MatMul", ["sum", "w"], ["then"], "inner")),
            else_branch=body("else", helper.make_node("Sub", ["product", "b"], ["else"])),
        ),
        helper.make_node("MatMul", ["chosen", "v"], ["y"], "last"),
    ]
    return model(nodes, [value("y", "batch", 4)], bound=np.float32(2.5), v=matrix(3, WIDE, 4))


def looping() -> onnx.ModelProto:
    """h = relu(x w + b), then three times h = tanh(h w)."""
    step = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "w"], ["multiplied"], "inner"),
            helper.make_node("Tanh", ["multiplied"], ["after"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "step",
        [value("round", of=TensorProto.INT64), value("go", of=TensorProto.BOOL), value("before", "batch", WIDE)],
        [value("go_on", of=TensorProto.BOOL), value("after", "batch", WIDE)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "product"),
        helper.make_node("Add", ["product", "b"], ["sum"], "bias"),
        helper.make_node("Relu", ["sum"], ["h"], "relu"),
        helper.make_node("Loop", ["times", "", "h"], ["y"], "loop", body=step),
    ]
    return model(nodes, [value("y", "batch", WIDE)], times=np.array(3))


def given() -> onnx.ModelProto:
    """The product is an output itself, and so is its bias."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "product"),
        helper.make_node("Add", ["product", "b"], ["sum"], "bias"),
        helper.make_node("Relu", ["sum"], ["y"], "relu"),
    ]
    return model(nodes, [value("y", "batch", WIDE), value("product", "batch", WIDE)])


def tied() -> onnx.ModelProto:
    """Twice the same transposed weights, as PyTorch exports a layer that is called twice; a body reads them plain."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["turned"], "turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["first"], "first"),
        helper.make_node("Tanh", ["first"], ["h"]),
        helper.make_node("MatMul", ["h", "turned"], ["second"], "second"),
        helper.make_node("ReduceMax", ["second"], ["largest"], "largest", keepdims=0),
        helper.make_node("Greater", ["largest", "bound"], ["is_large"], "is_large"),
        helper.make_node(
            "If",
            ["is_large"],
            ["y"],
            "if",
            then_branch=body("then", helper.make_node("MatMul", ["second", "w"], ["then"], "inner")),
            else_branch=body("else", helper.make_node("Identity", ["second"], ["else"])),
        ),
    ]
    return model(nodes, [value("y", "batch", WIDE)], bound=np.float32(4))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.summary)
@pytest.mark.parametrize("make", [branching, looping, given, tied])
def test_what_others_read_stays(tmp_path: Path, make: Any, recipe: Recipe) -> None:
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    write_graph(make(), fp32)
    feeds = [{"x": matrix(seed, 6, WIDE) * 3} for seed in range(4, 10)]
    quantize_graph(recipe, lambda: feeds, fp32, int8)
    expected, got = open_session(fp32), open_session(int8)
    for feed in feeds:
        wanted = expected.predict(feed)
        for name, answer in got.predict(feed).items():
            assert cosine(answer, wanted[name]).mean() > 0.95, name
    integer = {one.data_type for one in onnx.load(int8).graph.initializer}
    assert integer & {TensorProto.INT8, TensorProto.UINT8, TensorProto.UINT4, TensorProto.INT4}


def test_layer_that_is_left_out_stays_out_where_preparing_joins_it_with_its_bias(tmp_path: Path) -> None:
    fp32, int8 = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    write_graph(looping(), fp32)
    feeds = [{"x": matrix(seed, 6, WIDE)} for seed in range(4)]
    quantize_graph(Static(exclude=("product",)), lambda: feeds, fp32, int8)
    kept = {one.name: one.data_type for one in onnx.load(int8).graph.initializer if list(one.dims) == [WIDE, WIDE]}
    assert list(kept.values()) == [TensorProto.FLOAT], kept


def test_transposed_weights_that_nothing_else_reads_are_gone(tmp_path: Path) -> None:
    made = tied()
    del made.graph.node[4:]
    made.graph.output[0].name = "second"
    made.graph.output.append(value("kept", WIDE, WIDE))
    made.graph.node.append(helper.make_node("Transpose", ["v"], ["kept"], "given"))
    made.graph.initializer.append(numpy_helper.from_array(matrix(5, WIDE, WIDE), "v"))
    fp32 = tmp_path / "fp32.onnx"
    write_graph(made, fp32)
    graph = named_graph(fp32).graph
    assert {one.name for one in graph.initializer} >= {"turned", "v"}
    assert "w" not in {one.name for one in graph.initializer}
    # What is an output is left to be made.
    assert [node.op_type for node in graph.node].count("Transpose") == 1
    assert [layer.matrix for layer in layers(graph)] == ["turned", "turned"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.summary)
def test_weights_that_are_shared_are_quantized_once(tmp_path: Path, recipe: Recipe) -> None:
    once, twice = tmp_path / "once.onnx", tmp_path / "twice.onnx"
    made = tied()
    del made.graph.node[4:]
    made.graph.output[0].name = "second"
    for fp32, times in ((once, 1), (twice, 2)):
        if times == 1:
            one = onnx.ModelProto()
            one.CopyFrom(made)
            del one.graph.node[3:]
            one.graph.output[0].name = "h"
        write_graph(one if times == 1 else made, fp32)
        quantize_graph(recipe, lambda: [{"x": matrix(seed, 6, WIDE)} for seed in range(4)], fp32, fp32)
    grown = twice.stat().st_size - once.stat().st_size
    names = [each.name for each in onnx.load(twice).graph.initializer]
    assert len(names) == len(set(names))
    if not (isinstance(recipe, PerToken | Static) and recipe.smooth is not None):
        # Nodes and scales, and not a second matrix.
        assert grown < WIDE * WIDE * 0.7
