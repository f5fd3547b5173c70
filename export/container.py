"""NVIDIA's container of the pinned Triton: what its ONNX Runtime does not load, and the embedded Triton's does.

Opset and IR version are held to it in every graph (`export.graph`). Of the operators that are written here, one is
younger: in 1.19.2 the constructor of MatMulNBits refuses all but 4 bits ("Only 4b quantization is supported").
"""

from typing import Final

import onnx

CONTAINER: Final = "Triton 24.10's container"
RUNTIME: Final = "1.19.2"
BLOCK_BITS: Final = 4


def too_new(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes that it does not load."""
    blocks = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    return tuple(node.name for node in blocks if _bits(node) != BLOCK_BITS)


def _bits(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "bits"), BLOCK_BITS)
