"""Activation smoothing: move the reach of an activation's channels into the weights that read them.

SmoothQuant (Xiao et al., ICML 2023): with a factor for each channel

    f_j = max|x_j| ** a / max|W_j| ** (1 - a)

x W = (x / f) (f W), and the channels of x / f reach about equally far, so that one scale fits them all. The division is
a multiplication in the graph, before QuantizeLinear; products that read the same activation share it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantize.quantizing.activation_ranges import Seen

# Channels that are never used must not become infinite.
LEAST: Final = 1e-5


def smooth(model: onnx.ModelProto, names: Sequence[str], seen: Mapping[str, Seen], strength: float) -> None:
    """Smooth the inputs of the named MatMul nodes, in place.

    Args:
        model: an FP32 graph.
        names: MatMul nodes with constant weights; others are passed over.
        seen: what calibration saw of their inputs.
        strength: `a`, from 0 (weights stay as they are) to 1 (activations all reach 1).
    """
    weights = {one.name: one for one in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name in names and node.input[1] in weights and node.input[0] in seen:
            readers.setdefault(node.input[0], []).append(node)
    for x, nodes in readers.items():
        matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in nodes]
        widest = np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0)
        factor = np.maximum(seen[x].reach, LEAST) ** strength / np.maximum(widest, LEAST) ** (1 - strength)
        _scale(model.graph, x, nodes, matrices, factor.astype(np.float32))


def _scale(
    graph: onnx.GraphProto,
    x: str,
    nodes: Sequence[onnx.NodeProto],
    matrices: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]],
    factor: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> None:
    graph.initializer.append(numpy_helper.from_array(1 / factor, f"{x}/unsmooth"))
    first = next(place for place, node in enumerate(graph.node) if node.name == nodes[0].name)
    for node, matrix in zip(nodes, matrices, strict=True):
        graph.initializer.append(numpy_helper.from_array(matrix * factor[:, np.newaxis], f"{node.name}/smooth"))
        node.input[0], node.input[1] = f"{x}/smoothed", f"{node.name}/smooth"
    graph.node.insert(first, helper.make_node("Mul", [x, f"{x}/unsmooth"], [f"{x}/smoothed"], f"{x}/smoothing"))
