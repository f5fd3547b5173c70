"""Values of a graph without fixed places: what TopK, NonZero and the like give, and what is computed from it."""

from typing import Final

import onnx

from quantize.graph.node_inputs import node_inputs

# Behind these, a number is not where it was.
SORTS: Final = ("TopK", "NonMaxSuppression", "NonZero", "Unique", "Compress")


def sorted_values(graph: onnx.GraphProto) -> set[str]:
    """Names of what is computed from what was sorted, or found."""
    found: set[str] = set()
    for node in graph.node:
        if node.op_type in SORTS or found.intersection(node_inputs(node)):
            found.update(node.output)
    return found
