import itertools
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from export.graph.onnx_graph import IR_VERSION, OPSET, write_graph
from export.repository.version_content import FP32_FILE
from quantize.judging.verdict import quantized_bytes
from quantize.recipe import PerToken, WeightOnly
from quantize.recipe_choice import _round, within
from quantize.searching.sensitivity import Sensitivity, given_back, sensitivities, tried_layers, within_budget
from tests.quantize.conftest import TinyTask, two_layers


def found(layer: str, saved_bytes: int, loss: float) -> Sensitivity:
    return Sensitivity(layer=layer, operator="MatMul", weights=1, loss=loss, saved_bytes=saved_bytes)


def affordable(layers: list[Sensitivity], spare_bytes: float) -> list[str]:
    return [one.layer for one in within_budget(layers, spare_bytes)]


def test_budget_goes_to_the_most_loss_for_a_byte_and_is_never_exceeded() -> None:
    # .0017, .0067 and .0003 a byte.
    layers = [found("big", 300, 0.5), found("small", 30, 0.2), found("cheap", 30, 0.01)]
    assert affordable(layers, 30) == ["small"]
    assert affordable(layers, 60) == ["small", "cheap"]
    assert affordable(layers, 330) == ["small", "big"]
    # Small ones that would save less do not stand in the way of a large one.
    assert affordable(layers, 310) == ["big"]
    assert affordable(layers, 360) == ["small", "big", "cheap"]
    assert affordable(layers, -1) == []


def test_layer_that_costs_nothing_gets_nothing() -> None:
    assert affordable([found("free", 1, 0.0)], 1e9) == []


def test_layer_that_is_larger_in_int8_makes_room() -> None:
    assert affordable([found("large", 30, 0.5), found("tiny", -10, 0.001)], 20) == ["tiny", "large"]


def test_least_loss_for_a_byte_is_given_back_first() -> None:
    chosen = [found("small", 30, 0.2), found("big", 300, 0.5), found("cheap", 30, 0.01)]
    assert [one.layer for one in given_back(chosen, 0)] == ["small", "big", "cheap"]
    assert [one.layer for one in given_back(chosen, 30)] == ["small", "big"]
    assert [one.layer for one in given_back(chosen, 31)] == ["small"]
    assert given_back(chosen, 1000) == ()


def test_each_quantized_layer_is_tried_alone(lenient: Any, build: Path) -> None:
    steps: list[str] = []
    found = sensitivities(lenient, PerToken(), build / "models" / "digits", steps.append, 9)
    assert [(one.layer, one.operator, one.weights) for one in found] == [
        ("product", "MatMul", 4096),
        ("last", "MatMul", 1024),
    ]
    assert steps == ["product", "last"]
    assert all(0 < one.loss < 1e-3 for one in found)


@pytest.mark.parametrize(("recipe", "bytes_a_weight"), [(WeightOnly(bits=4, block=128), 3.4), (WeightOnly(), 2.8)])
def test_what_a_layer_saves_is_measured(lenient: Any, build: Path, recipe: WeightOnly, bytes_a_weight: float) -> None:
    write_graph(two_layers(4096), build / "models" / "digits" / FP32_FILE)
    found = sensitivities(lenient, recipe, build / "models" / "digits", lambda _: None, 9)
    saved = {one.layer: one.saved_bytes / one.weights for one in found}
    assert saved["last"] == pytest.approx(bytes_a_weight, abs=0.15)


def test_layers_with_most_weights_are_tried_in_the_graphs_order(tmp_path: Path) -> None:
    graph = chain(4, 8, 2, 8, 4)  # products of 32, 16, 16 and 32 weights
    write_graph(graph, tmp_path / FP32_FILE)

    def names(most: int) -> list[str]:
        return [layer.name for (layer,) in tried_layers(WeightOnly(), tmp_path, most)]

    assert names(9) == ["product_0", "product_1", "product_2", "product_3"]
    assert names(3) == ["product_0", "product_1", "product_3"]
    assert names(1) == ["product_0"]


def test_layers_with_the_same_weights_are_one(tmp_path: Path) -> None:
    graph = chain(4, 4, 4, 4)
    graph.graph.node[2].input[1] = "w0"
    write_graph(graph, tmp_path / FP32_FILE)
    names = [[layer.name for layer in alike] for alike in tried_layers(WeightOnly(), tmp_path, 9)]
    assert names == [["product_0", "product_2"], ["product_1"]]


def test_layers_with_the_same_weights_are_left_in_fp32_together(lenient: Any, build: Path) -> None:
    # x -> twice the same matrix -> another one: the pair is what costs.
    model, built = two_layers(256), build / "models" / "digits"
    wide = np.random.default_rng(0).normal(0, 0.05, (256, 256)).astype(np.float32)
    # One weight of each block that makes a coarse grid for the others.
    wide[::32] *= 50
    model.graph.initializer.append(numpy_helper.from_array(wide, "wide"))
    nodes = [helper.make_node("MatMul", ["r", "wide"], ["s"], "a"), helper.make_node("Tanh", ["s"], ["t"], "tanh")]
    nodes += [helper.make_node("MatMul", ["t", "wide"], ["u"], "b")]
    last = model.graph.node.pop()
    last.input[0] = "u"
    model.graph.node.extend([*nodes, last])
    write_graph(model, built / FP32_FILE)
    recipe = WeightOnly()
    found = {one.layer: one for one in sensitivities(lenient, recipe, built, lambda _: None, 9)}
    assert (found["a"].shared, found["product"].shared) == (("b",), ())
    # What only one of them would not save.
    assert found["a"].saved_bytes == pytest.approx(256 * 256 * 2.8, rel=0.1)
    all_int8 = quantized_bytes(lenient, recipe, built)
    budget = (all_int8 + found["a"].saved_bytes + 2000) / 1e6
    got, choice = within("digits", lenient, recipe, build, Console(stderr=True), budget, 9)
    assert {"a", "b"} <= set(got.exclude)
    assert quantized_bytes(lenient, got, built) <= budget * 1e6
    assert choice.startswith("1 of 3 layers in FP32")


def test_loss_of_single_numbers_is_their_part_that_is_not_explained(build: Path) -> None:
    class Prices(TinyTask):
        def answers(self, model: Any, built: Path, split: Any) -> Any:
            return super().answers(model, built, split)[:, :1]

    found = sensitivities(Prices(0.9), PerToken(), build / "models" / "digits", lambda _: None, 9)
    assert all(1e-7 < one.loss < 0.1 for one in found)


@pytest.mark.parametrize(
    ("size_bytes", "lowest", "highest"),
    [(12_345_678, "12.4", "12.3"), (999_999, "1.00", "0.999"), (123_456_789, "124", "123")],
)
def test_limit_that_a_budget_is_refused_with_is_one_that_is_allowed(size_bytes: int, lowest: str, highest: str) -> None:
    assert _round(size_bytes, ROUND_CEILING) == lowest
    assert _round(size_bytes, ROUND_FLOOR) == highest


def chain(*widths: int) -> onnx.ModelProto:
    """Matrix products one after the other, y = x @ w0 @ w1 ..."""
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), f"w{place}")
        for place, shape in enumerate(itertools.pairwise(widths))
    ]
    ends = ["x", *(f"h{place}" for place in range(len(weights) - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [ends[place], f"w{place}"], [ends[place + 1]], f"product_{place}")
        for place in range(len(weights))
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("x", widths[0]), ("y", widths[-1]))
    )
    graph = helper.make_graph(nodes, "chain", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
