"""Transposed weights: constants that a graph transposes in each run. PyTorch exports shared weights in this way."""

from collections.abc import Sequence

import onnx
from onnx import numpy_helper

from quantize.graph.node_inputs import node_inputs

PRODUCTS = ("MatMul", "Gemm")


def fold_transposed(graph: onnx.GraphProto) -> None:
    """Make constants of transposed constants that products read, in place: what is quantized has constant weights.

    ONNX Runtime does so itself when it loads a graph. What else reads the constant, as a table of words does, keeps it.
    """
    constants = {one.name: one for one in graph.initializer}
    wanted = {node.input[1] for node in graph.node if node.op_type in PRODUCTS}
    given = {output.name for output in graph.output}
    folded = [
        node
        for node in graph.node
        if node.op_type == "Transpose"
        and node.input[0] in constants
        and node.output[0] in wanted
        and node.output[0] not in given
    ]
    for node in folded:
        values = numpy_helper.to_array(constants[node.input[0]]).transpose(_axes(node))
        graph.initializer.append(numpy_helper.from_array(values.copy(), node.output[0]))
        graph.node.remove(node)
    read = {name for node in graph.node for name in node_inputs(node)} | given
    for name in {node.input[0] for node in folded} - read:
        graph.initializer.remove(constants[name])


def _axes(node: onnx.NodeProto) -> Sequence[int] | None:
    return next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
