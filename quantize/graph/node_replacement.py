"""Replacement of a graph's nodes by new ones, and the name of the domain of ONNX Runtime's own kernels."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import onnx

from quantize.graph.node_inputs import node_inputs

CONTRIB: Final = "com.microsoft"


def replace_nodes(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], constants: Iterable[onnx.TensorProto] = ()
) -> None:
    """Make these the nodes of a graph, and keep of its constants and the new ones those that they read."""
    # Copied first: what is taken out of a graph is freed with it.
    kept = [_copy(node) for node in nodes]
    used = {name for node in kept for name in node_inputs(node)} | {output.name for output in graph.output}
    initializers = [_copy(one) for one in (*graph.initializer, *constants) if one.name in used]
    for field, values in (("node", kept), ("initializer", initializers), ("value_info", [])):
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
