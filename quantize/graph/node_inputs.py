"""The inputs of a node: its own, and what the bodies of If, Loop and Scan take from the graph around them."""

from collections.abc import Iterator

import onnx


def node_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Names of values, some more than once; those that a body makes for itself are among them."""
    yield from node.input
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (output.name for output in body.output)
            for inner in body.node:
                yield from node_inputs(inner)
