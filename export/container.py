"""NVIDIA's container of the pinned Triton: what its ONNX Runtime does not load, and the embedded Triton's does.

Opset and IR version are held to it in every graph (`export.graph`). Of the operators that are written here, one is
younger: in 1.19.2 the constructor of MatMulNBits refuses all but 4 bits ("Only 4b quantization is supported").
`quantize.byte_grid` makes 8 bits of them.
"""

from typing import Final

import onnx

CONTAINER: Final = "Triton 24.10's container"
RUNTIME: Final = "1.19.2"
BLOCK_BITS: Final = 4


def too_new(model: onnx.ModelProto) -> tuple[str, ...]:
    """The layers that it does not load, by the names of their nodes before they were quantized."""
    blocks = [(node.name, _bits(node)) for node in model.graph.node if node.op_type == "MatMulNBits"]
    # ONNX Runtime's quantizer adds the bits to the name.
    return tuple(name.removesuffix(f"_Q{bits}") for name, bits in blocks if bits != BLOCK_BITS)


def _bits(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "bits"), BLOCK_BITS)
