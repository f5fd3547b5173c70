"""Postprocessing: the nodes behind the last layers with weights. They gain nothing from INT8.

Example: a detector's last convolutions are layers; the Sigmoid, Mul and Concat behind them are postprocessing.
"""

from collections.abc import Collection, Mapping
from typing import Final

import onnx

from quantize.graph.node_inputs import node_inputs

WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Loop", "Scan", "If")
# With a convolution in front of them they are one kernel, and cost no range of their own.
CUTS: Final = ("Relu", "Clip")


def matrices(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of constants with two axes or more, however the graph has them: as such, or computed of others alone."""
    known = {one.name: len(one.dims) > 1 for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            known[node.output[0]] = any(len(one.t.dims) > 1 for one in node.attribute if one.HasField("t"))
        elif (inputs := [name for name in node_inputs(node) if name]) and all(name in known for name in inputs):
            known.update(dict.fromkeys(node.output, any(known[name] for name in inputs)))
    return frozenset(name for name, matrix in known.items() if matrix)


def is_layer(node: onnx.NodeProto, weights: Collection[str]) -> bool:
    """Whether a node has weights of its own, of `matrices`, or a body that may have some."""
    if node.op_type in ("Loop", "Scan", "If"):
        return True
    return node.op_type in WEIGHTED and any(name in weights for name in node.input)


def postprocessing_nodes(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the nodes that no layer reads from, near or far, and that are none themselves.

    But for a Relu or Clip that alone reads what a convolution computes: it is part of that.
    """
    weights = matrices(graph)
    readers = _readers(graph)
    before: set[int] = set()
    # From the end: a node whose reader is a layer, or lies before one.
    for node in reversed(graph.node):
        following = [reader for name in node.output for reader in readers.get(name, ())]
        if any(is_layer(reader, weights) or id(reader) in before for reader in following):
            before.add(id(node))
    producers = {name: node for node in graph.node for name in node.output}
    return frozenset(
        node.name
        for node in graph.node
        if id(node) not in before and not is_layer(node, weights) and not _is_cut(node, producers, readers, graph)
    )


def last_layers(graph: onnx.GraphProto, excluded: Collection[str] = ()) -> dict[str, onnx.NodeProto]:
    """The layers that an end reads or that give an output, by the name of what they put out, behind a Relu of a Conv.

    Args:
        graph: with names.
        excluded: nodes that are not quantized, layers among them, which count as none here.
    """
    weights = matrices(graph)
    readers, behind = _readers(graph), postprocessing_nodes(graph).union(excluded)
    given = {output.name for output in graph.output}
    found: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        if not is_layer(node, weights) or len(node.output) != 1 or node.name in excluded:
            continue
        name = node.output[0]
        following = readers.get(name, [])
        if len(following) == 1 and following[0].op_type in CUTS and following[0].name not in behind:
            name = following[0].output[0]
            following = readers.get(name, [])
        if name in given or any(one.name in behind for one in following):
            found[name] = node
    return found


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node_inputs(node)):
            if name:
                readers.setdefault(name, []).append(node)
    return readers


def _is_cut(
    node: onnx.NodeProto,
    producers: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, list[onnx.NodeProto]],
    graph: onnx.GraphProto,
) -> bool:
    if node.op_type not in CUTS:
        return False
    name = node.input[0]
    producer = producers.get(name)
    return (
        producer is not None
        and producer.op_type in ("Conv", "ConvTranspose")
        and len(readers.get(name, ())) == 1
        and name not in {output.name for output in graph.output}
    )
