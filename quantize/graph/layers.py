"""Layers: the nodes of a graph with constant weights. A recipe quantizes some of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from export.errors import ExportError
from quantize.graph.postprocessing import postprocessing_nodes
from quantize.recipe import AFTER, Dynamic, Recipe, Static


class UnknownLayerError(ExportError):
    """A pattern of `exclude` matches nothing."""


@dataclass(frozen=True)
class Layer:
    """A node with constant weights.

    `producer` is the operator that computes its activation, empty for an input of the graph; `weights` is how many
    numbers it holds, and `matrix` their name in the graph, which several layers may share.
    """

    name: str
    operator: str
    producer: str
    weights: int
    matrix: str


def layers(graph: onnx.GraphProto) -> tuple[Layer, ...]:
    """All layers of a graph: MatMul, Gemm, Conv with constant weights, and Gather from a constant table."""
    constants = {one.name: one for one in graph.initializer}
    producers = {output: node.op_type for node in graph.node for output in node.output}
    return tuple(
        Layer(
            node.name,
            node.op_type,
            producers.get(node.input[1 - place], ""),
            _size(constants[node.input[place]]),
            node.input[place],
        )
        for node in graph.node
        if (place := weight_place(node, constants)) is not None
    )


def weight_place(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> int | None:
    """Which input of a node is its constant weight matrix (or kernel, or table); None where it has none."""
    place = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}.get(node.op_type)
    if place is None or node.input[place] not in constants:
        return None
    constant = constants[node.input[place]]
    return place if constant.data_type == onnx.TensorProto.FLOAT and len(constant.dims) >= 2 else None


def quantized(recipe: Recipe, graph: onnx.GraphProto) -> tuple[str, ...]:
    """Names of the nodes that a recipe quantizes.

    Raises:
        UnknownLayerError: a pattern of `exclude` matches no layer.
    """
    known = layers(graph)
    excluded: set[str] = set()
    for pattern in recipe.exclude:
        meant = _meant(known, pattern)
        if not meant:
            names = ", ".join(layer.name for layer in known)
            raise UnknownLayerError(f"exclude {pattern!r}: expected a pattern that matches a layer, of {names}")
        excluded |= meant
    return tuple(name for name in _candidates(recipe, graph, known) if name not in excluded)


def _candidates(recipe: Recipe, graph: onnx.GraphProto, known: Sequence[Layer]) -> list[str]:
    if isinstance(recipe, Static):
        if not recipe.operators:
            behind = postprocessing_nodes(graph)
            return [node.name for node in graph.node if node.name not in behind]
        return [layer.name for layer in known if layer.operator in recipe.operators]
    taken = ("MatMul", "Gemm", "Gather") if isinstance(recipe, Dynamic) else ("MatMul", "Gather")
    return [layer.name for layer in known if layer.operator in taken]


def _meant(known: Sequence[Layer], pattern: str) -> set[str]:
    # A name as it is comes first: one with brackets, as of a list of layers, is a pattern that does not match itself.
    exact = {layer.name for layer in known if layer.name == pattern}
    return exact or {layer.name for layer in known if _matches(layer, pattern)}


def _matches(layer: Layer, pattern: str) -> bool:
    if pattern.startswith(AFTER):
        return layer.producer == pattern.removeprefix(AFTER)
    return fnmatchcase(layer.name, pattern)


def _size(constant: onnx.TensorProto) -> int:
    size = 1
    for dim in constant.dims:
        size *= dim
    return size
