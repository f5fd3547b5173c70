"""Excluded layers: they read numbers of such different sizes that one range for all loses the small ones.

They are looked for where INT8 was refused. A second try leaves them in FP32.

A product y = x W of an x on a grid of step d has noise of d / sqrt(12) |W_o| in output o. Where that is much of what
y_o varies by, what it depends on was lost in the step: columns of a table that reach 1e5 beside some that reach 1, or a
Concat in the middle of a graph. The layer then stays FP32, and so does all between it and the layers before it.

This is not done at once, as weak channels in the middle of a graph are common and mostly cost nothing.
"""

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from export.definition.tensor import Array, Feed
from quantize.graph.layers import layers, weight_place
from quantize.graph.postprocessing import CUTS, is_layer, matrices
from quantize.quantizing.activation_ranges import U8_STEPS, values_of

# Of what an output varies by.
NOISE_MOST: Final = 0.2
# An output that varies by less than this part of the liveliest is still.
STILL: Final = 1e-6


class ExcludedLayers(NamedTuple):
    """Names of nodes that stay FP32, and why, by the names of those that are to blame."""

    nodes: frozenset[str]
    whys: dict[str, str]


def excluded_layers(model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feed]) -> ExcludedLayers:
    """What to leave in FP32 of the nodes that were quantized; nothing where no layer is to blame, or every one is.

    Args:
        model: the FP32 graph, with names.
        names: of the nodes that were quantized.
        feeds: calibration inputs.
    """
    constants, weights = {one.name: one for one in model.graph.initializer}, matrices(model.graph)
    products = [
        node
        for node in model.graph.node
        if node.name in names and node.op_type != "Gather" and weight_place(node, constants) == 1
    ]
    noises = _noises(model, products, feeds)
    coarse = [node for node in products if noises.get(node.name, 0) > NOISE_MOST]
    read = {node.input[0] for node in coarse}
    found = {node.name for node in products if node.input[0] in read}
    # What is given as an output and read on, too, is given in steps if it is quantized.
    for name in (*read, *(output.name for output in model.graph.output)):
        found |= _before(model.graph, name, weights)
    found &= {*names}
    if not found or all(layer.name in found for layer in layers(model.graph) if layer.name in names):
        return ExcludedLayers(frozenset(), {})
    whys = {
        node.name: f"{node.name}: with one range for all that it reads, an output would have noise of "
        f"{noises[node.name]:.2g} of what it varies by"
        for node in coarse
    }
    return ExcludedLayers(frozenset(found), whys)


def _noises(model: onnx.ModelProto, products: list[onnx.NodeProto], feeds: Iterable[Feed]) -> dict[str, float]:
    """The noise of each product in the output that has most of it, as a part of what that varies by."""
    constants = {one.name: one for one in model.graph.initializer}
    reach: dict[str, tuple[float, float]] = {}
    sums: dict[str, tuple[float, Array, Array]] = {}
    watched = [name for node in products for name in (node.input[0], node.output[0])]
    for values in values_of(model, watched, feeds):
        for node in products:
            x, y = values[node.input[0]], _by_output(node, values[node.output[0]])
            least, largest = reach.get(node.name, (0.0, 0.0))
            reach[node.name] = min(least, float(x.min(initial=0))), max(largest, float(x.max(initial=0)))
            count, total, squares = sums.get(node.name, (0.0, np.zeros(1), np.zeros(1)))
            sums[node.name] = count + y.shape[1], total + y.sum(axis=1), squares + np.square(y).sum(axis=1)
    found = {}
    for node in products:
        if node.name not in sums:
            continue
        count, total, squares = sums[node.name]
        spread = np.sqrt(np.maximum(squares / count - np.square(total / count), 0))
        lengths = _lengths(node, numpy_helper.to_array(constants[node.input[1]]))
        lively = spread > STILL * spread.max(initial=0)
        if lengths.shape != spread.shape or not lively.any():
            continue
        step = (reach[node.name][1] - reach[node.name][0]) / U8_STEPS
        found[node.name] = float((step / np.sqrt(12) * lengths[lively] / spread[lively]).max())
    return found


def _by_output(node: onnx.NodeProto, values: Array) -> Array:
    """FP64 [outputs, everything else]: channels of a convolution are the second axis, columns of a product the last."""
    axis = 1 if node.op_type == "Conv" else values.ndim - 1
    return np.moveaxis(values.astype(np.float64), axis, 0).reshape(values.shape[axis], -1)


def _lengths(node: onnx.NodeProto, weights: Array) -> Array:
    """The length of the weights of each output."""
    flipped = any(one.name == "transB" and one.i for one in node.attribute)
    rows = weights if node.op_type == "Conv" or flipped else np.moveaxis(weights, -1, 0)
    return np.asarray(np.sqrt(np.square(rows.reshape(len(rows), -1).astype(np.float64)).sum(axis=1)))


def _before(graph: onnx.GraphProto, name: str, weights: Collection[str]) -> set[str]:
    """Nodes that make a tensor of what the layers before it give: all but those, and the convolution that gives it."""
    producers = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    # A tensor, and whether it is the one that is asked about, but for a cut.
    waiting = [(name, True)]
    while waiting:
        tensor, itself = waiting.pop()
        node = producers.get(tensor)
        if node is None or node.name in found or (is_layer(node, weights) and not (itself and node.op_type == "Conv")):
            continue
        found.add(node.name)
        if not is_layer(node, weights):
            waiting += [(one, itself and node.op_type in CUTS) for one in node.input]
    return found
