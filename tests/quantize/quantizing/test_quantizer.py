from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import quantize.quantizing.quantizer
from export.definition.tensor import FloatArray
from export.graph.onnx_graph import IR_VERSION, OPSET, GraphError, write_graph
from export.inference.cosine import cosine
from export.inference.session import open_session
from quantize.graph.layers import UnknownLayerError, quantized
from quantize.quantizing.quantizer import named_graph, quantize_graph
from quantize.recipe import Dynamic, PerToken, Recipe, Static, WeightOnly
from tests.quantize.conftest import tiny_graph, two_layers

MATMUL = ("MatMul",)


def rows(count: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 16)).astype(np.float32)


def test_result_is_close_static_and_of_the_same_format(lenient: Any, build: Path, tmp_path: Path) -> None:
    built = build / "models" / "digits"
    quantize_graph(lenient.recipe, lambda: lenient.calibration(built), built / "fp32.onnx", tmp_path / "int8.onnx")
    model = onnx.load(tmp_path / "int8.onnx")
    operators = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert "DynamicQuantizeLinear" not in operators
    assert (model.ir_version, {entry.version for entry in model.opset_import if not entry.domain}) == (
        IR_VERSION,
        {OPSET},
    )
    feed = next(lenient.calibration(built))
    difference = open_session(tmp_path / "int8.onnx").run(feed) - open_session(built / "fp32.onnx").run(feed)
    assert 0 < np.abs(difference).max() < 0.01


def test_weights_are_signed_and_have_a_scale_a_channel(lenient: Any, build: Path, tmp_path: Path) -> None:
    built = build / "models" / "digits"
    quantize_graph(lenient.recipe, lambda: lenient.calibration(built), built / "fp32.onnx", tmp_path / "int8.onnx")
    constants = {one.name: one for one in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    assert constants["w_quantized"].data_type == TensorProto.INT8
    assert list(constants["w_scale"].dims) == [256]


@pytest.mark.parametrize(
    ("recipe", "operator"),
    [
        (Static(), "QuantizeLinear"),
        (Static(operators=MATMUL, calibrate="entropy"), "QuantizeLinear"),
        (Static(operators=MATMUL, smooth=0.5), "Mul"),
        (PerToken(), "MatMulIntegerToFloat"),
        (PerToken(smooth=0.5), "Mul"),
        (Dynamic(), "DynamicQuantizeLinear"),
        (WeightOnly(bits=8, block=16), "MatMulNBits"),
        (WeightOnly(bits=4, block=16), "MatMulNBits"),
    ],
)
def test_every_recipe_gives_a_graph_close_to_fp32(
    lenient: Any, build: Path, tmp_path: Path, recipe: Recipe, operator: str
) -> None:
    built = build / "models" / "digits"
    quantize_graph(recipe, lambda: lenient.calibration(built), built / "fp32.onnx", tmp_path / "int8.onnx")
    assert operator in {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    feed = next(lenient.calibration(built))
    difference = open_session(tmp_path / "int8.onnx").run(feed) - open_session(built / "fp32.onnx").run(feed)
    assert 0 < np.abs(difference).max() < (0.1 if recipe == WeightOnly(bits=4, block=16) else 0.02)


@pytest.mark.parametrize("calibrate", ["minmax", "entropy"])
def test_calibration_takes_feeds_of_several_lengths(tmp_path: Path, build: Path, calibrate: Any) -> None:
    recipe = Static(operators=MATMUL, calibrate=calibrate)
    feeds = [{"x": rows(count, count)} for count in (1, 5, 2)]
    quantize_graph(recipe, lambda: feeds, build / "models" / "digits" / "fp32.onnx", tmp_path / "int8.onnx")
    assert np.isfinite(open_session(tmp_path / "int8.onnx").run(feeds[1])).all()


def test_excluded_layer_stays_fp32(lenient: Any, build: Path, tmp_path: Path) -> None:
    built = build / "models" / "digits"
    recipe = PerToken(exclude=("prod*", "last"))
    quantize_graph(recipe, lambda: lenient.calibration(built), built / "fp32.onnx", tmp_path / "int8.onnx")
    feed = next(lenient.calibration(built))
    outputs = [open_session(path).run(feed) for path in (tmp_path / "int8.onnx", built / "fp32.onnx")]
    assert np.array_equal(*outputs)


def test_unknown_excluded_layer_is_an_error_that_names_the_layers(lenient: Any, build: Path, tmp_path: Path) -> None:
    built = build / "models" / "digits"
    with pytest.raises(UnknownLayerError, match="exclude 'fc1': expected a pattern that matches a layer, of product"):
        quantize_graph(PerToken(exclude=("fc1",)), lambda: (), built / "fp32.onnx", tmp_path / "int8.onnx")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "cut off"),
        (lambda path: path.write_text("not a graph"), "not an ONNX file"),
        (lambda path: path.write_bytes(b""), "it has no nodes"),
        (lambda path: path.unlink(), "no such file"),
    ],
)
def test_bad_file_is_an_error_that_names_file_and_reason(build: Path, tmp_path: Path, spoil: Any, reason: str) -> None:
    path = build / "models" / "digits" / "fp32.onnx"
    spoil(path)
    with pytest.raises(GraphError, match=f"fp32.onnx: .*({reason})"):
        quantize_graph(Static(), lambda: (), path, tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("recipe", [Static(), Dynamic(), PerToken(), WeightOnly(bits=8, block=16)], ids=repr)
def test_weights_that_are_no_numbers_are_named_with_their_layer(tmp_path: Path, recipe: Recipe, value: float) -> None:
    model = tiny_graph()
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[3, 2] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    write_graph(model, tmp_path / "fp32.onnx")
    with pytest.raises(GraphError, match=f"fp32.onnx: weights of 'product': expected numbers, got {value:g}"):
        quantize_graph(recipe, lambda: [{"x": rows(8, 1)}], tmp_path / "fp32.onnx", tmp_path / "int8.onnx")


def test_static_recipe_says_which_opset_it_needs(tmp_path: Path) -> None:
    model = tiny_graph()
    model.opset_import[0].version = 12
    write_graph(model, tmp_path / "fp32.onnx")
    with pytest.raises(GraphError, match="static quantization: expected a graph of opset 13 or newer, got 12"):
        quantize_graph(Static(), lambda: [{"x": rows(8, 1)}], tmp_path / "fp32.onnx", tmp_path / "int8.onnx")


def test_assertion_of_the_runtimes_quantizer_is_an_error_of_one_line(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("scale\nissue")

    monkeypatch.setattr(quantize.quantizing.quantizer, "quantize_dynamic", fail)
    with pytest.raises(GraphError, match=r"^ONNX Runtime cannot quantize it: AssertionError: scale issue$"):
        quantize_graph(Dynamic(), lambda: (), build / "models/digits/fp32.onnx", tmp_path / "int8.onnx")


def test_graph_with_a_loop_is_quantized_around_it(tmp_path: Path) -> None:
    """What the body reads comes before the loop, also where quantizing has added it."""
    model = tiny_graph()
    # Two rows of a product, which the body reads from outside, summed up and added to every row of it.
    body = onnx.parser.parse_graph(
        "body (int64 i, bool go, float[4] sum) => (bool on, float[4] more) "
        "{ on = Identity(go) row = Gather<axis=0>(p, i) more = Add(sum, row) }"
    )
    nodes = onnx.parser.parse_graph(
        "outer (float[batch, 16] x) => (float[batch, 4] y) <int64 two = {2}, bool yes = {1}, float[4] none = {0,0,0,0}>"
        "{ p = MatMul(x, w) rows = Identity(none) y = Add(p, rows) }"
    )
    loop = onnx.helper.make_node("Loop", ["two", "yes", "none"], ["rows"], "loop", body=body)
    del model.graph.node[:]
    model.graph.node.extend([nodes.node[0], loop, nodes.node[2]])
    model.graph.initializer.extend(nodes.initializer)
    write_graph(model, tmp_path / "fp32.onnx")
    quantize_graph(Static(), lambda: [{"x": rows(8, 1)}], tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    fp32, int8 = (open_session(tmp_path / name).run({"x": rows(4, 2)}) for name in ("fp32.onnx", "int8.onnx"))
    assert np.abs(fp32 - int8).max() < 0.02


# Its place would give it the name of another.
@pytest.mark.parametrize("names", [("MatMul_2", "", "r"), ("", "MatMul_0", "MatMul_0_")])
@pytest.mark.parametrize("recipe", [PerToken(), Static(operators=("MatMul",)), WeightOnly(), Dynamic()])
def test_node_without_a_name_gets_a_free_one(
    lenient: Any, build: Path, tmp_path: Path, names: tuple[str, str, str], recipe: Recipe
) -> None:
    model = two_layers()
    first, between, last = model.graph.node
    first.name, last.name, between.name = names
    write_graph(model, tmp_path / "fp32.onnx")
    named = [node.name for node in named_graph(tmp_path / "fp32.onnx").graph.node]
    assert len({*named, ""}) == 4, named
    assert named[0] == names[0] or not names[0]
    quantize_graph(recipe, lambda: lenient.calibration(build), tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    answers = [open_session(tmp_path / f"{of}.onnx").run({"x": rows(40, 9)}) for of in ("fp32", "int8")]
    assert cosine(*answers).mean() > 0.99


def test_name_with_brackets_is_the_layer_of_that_name(tmp_path: Path) -> None:
    model = two_layers()
    model.graph.node[0].name, model.graph.node[2].name = "layers[0]", "layers0"
    write_graph(model, tmp_path / "fp32.onnx")
    graph = named_graph(tmp_path / "fp32.onnx").graph
    assert quantized(WeightOnly(exclude=("layers[0]",)), graph) == ("layers0",)
    assert quantized(WeightOnly(exclude=("layers[[]0]",)), graph) == ("layers0",)
    assert quantized(WeightOnly(exclude=("layers[01]",)), graph) == ("layers[0]",)


def test_weights_alone_are_quantized_in_graphs_too_old_for_the_kernels_of_a_token(tmp_path: Path) -> None:
    model = tiny_graph()
    model.opset_import[0].version = 17
    write_graph(model, tmp_path / "fp32.onnx")
    quantize_graph(WeightOnly(bits=8, block=16), lambda: (), tmp_path / "fp32.onnx", tmp_path / "int8.onnx")
    answers = [open_session(tmp_path / f"{of}.onnx").run({"x": rows(40, 9)}) for of in ("fp32", "int8")]
    np.testing.assert_allclose(*answers, atol=0.01)
