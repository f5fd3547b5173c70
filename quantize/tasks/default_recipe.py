"""The default recipe, by the operators of a graph, for a model that names none; and a recipe's form for TensorRT."""

from collections.abc import Sequence
from typing import Final

import onnx

from quantize.graph.layers import Layer, layers
from quantize.quantizing.per_token import LEAST, LEAST_OPSET, is_per_token
from quantize.recipe import AFTER, PerToken, Recipe, Static

# With constant weights. Tables are looked up, not multiplied: TensorRT has no INT8 form of that.
PRODUCTS: Final = ("Conv", "Gemm", "MatMul")


def default_recipe(model: onnx.ModelProto) -> Recipe:
    """`PerToken` where matrix products of tokens hold most of the weights, `Static` for convolutions and the rest.

    PyTorch's exporter writes a linear layer as MatMul where its input has tokens, and as Gemm where it has rows alone.
    """
    held = {"MatMul": 0, "Gemm": 0, "Conv": 0, "Gather": 0}
    for layer in layers(model.graph):
        held[layer.operator] += layer.weights
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    return PerToken() if held["MatMul"] > held["Gemm"] + held["Conv"] and opset >= LEAST_OPSET else Static()


def symmetric_form(recipe: Recipe, graph: onnx.GraphProto) -> Static:
    """The same layers with s8 activations and s8 weights, both symmetric, as QDQ pairs.

    What `PerToken` gives a scale a token stays FP32: one scale for all of them would cost the accuracy.
    """
    if isinstance(recipe, Static):
        operators = tuple(one for one in recipe.operators or PRODUCTS if one in PRODUCTS)
        return recipe.model_copy(update={"operators": operators, "symmetric": True})
    kept = _long_tails(layers(graph)) if isinstance(recipe, PerToken) else ()
    exclude = tuple(dict.fromkeys((*recipe.exclude, *kept)))
    return Static(operators=("MatMul",), symmetric=True, exclude=exclude, smooth=getattr(recipe, "smooth", None))


def _long_tails(known: Sequence[Layer]) -> list[str]:
    behind = {layer.producer for layer in known if layer.operator == "MatMul" and is_per_token(layer.producer)}
    return [f"{AFTER}{operator}" for operator in LEAST if operator in behind]
