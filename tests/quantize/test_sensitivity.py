import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph import IR_VERSION, OPSET, write_graph
from export.version import FP32_FILE
from quantize.recipe import PerToken, WeightOnly
from quantize.sensitivity import Sensitivity, sensitivities, tried_layers, within_budget


def found(layer: str, weights: int, loss: float) -> Sensitivity:
    return Sensitivity(layer=layer, operator="MatMul", weights=weights, loss=loss)


def test_budget_goes_to_the_most_loss_for_a_byte_and_is_never_exceeded() -> None:
    layers = [found("big", 100, 0.5), found("small", 10, 0.2), found("cheap", 10, 0.01)]
    # .02 a weight, .005 and .001; a weight costs 3 bytes more in FP32.
    assert within_budget(layers, 30) == ("small",)
    assert within_budget(layers, 60) == ("small", "cheap")
    assert within_budget(layers, 330) == ("small", "big")
    assert within_budget(layers, 360) == ("small", "big", "cheap")
    assert within_budget(layers, -1) == ()


def test_layer_that_costs_nothing_gets_nothing() -> None:
    assert within_budget([found("free", 1, 0.0)], 1e9) == ()


def test_each_quantized_layer_is_tried_alone(lenient: Any, build: Path) -> None:
    steps: list[str] = []
    found = sensitivities(lenient, PerToken(), build / "models" / "digits", steps.append, 9)
    assert [(one.layer, one.operator, one.weights) for one in found] == [
        ("product", "MatMul", 64),
        ("last", "MatMul", 16),
    ]
    assert steps == ["product", "last"]
    assert all(0 < one.loss < 1e-3 for one in found)


def test_layers_with_most_weights_are_tried_in_the_graphs_order(tmp_path: Path) -> None:
    graph = chain(4, 8, 2, 8, 4)  # products of 32, 16, 16 and 32 weights
    write_graph(graph, tmp_path / FP32_FILE)

    def names(most: int) -> list[str]:
        return [layer.name for layer in tried_layers(WeightOnly(), tmp_path, most)]

    assert names(9) == ["product_0", "product_1", "product_2", "product_3"]
    assert names(3) == ["product_0", "product_1", "product_3"]
    assert names(1) == ["product_0"]


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
