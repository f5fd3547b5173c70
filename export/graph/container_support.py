"""What the ONNX Runtime in NVIDIA's container of the pinned Triton does not load, and the embedded Triton's does.

Its limits were found by loading graphs in onnxruntime 1.19.2. Of the operators of ONNX Runtime's own, those are listed
that 1.31.1 has and 1.19.2 has not. Of those that are written here, one is younger: in 1.19.2 the constructor of
MatMulNBits refuses all but 4 bits ("Only 4b quantization is supported"). `quantize.quantizing.byte_grid` makes 8 bits
of them.
"""

from typing import Final

import onnx

from export.graph.onnx_graph import bodies

CONTAINER: Final = "Triton 24.10's container"
RUNTIME: Final = "1.19.2"
OPSET: Final = 21
IR_VERSION: Final = 10
BLOCK_BITS: Final = 4
# Domains of ONNX itself; ONNX Runtime's own operators.
STANDARD: Final = ("", "ai.onnx")
OWN: Final = "com.microsoft"
YOUNGER: Final = frozenset(
    {
        "BranchwiseRMSNorm",
        "CausalConvWithState",
        "DynamicSparseAttention",
        "EngramGate",
        "GatedAdd",
        "GatedDeltaNet",
        "GatedRMSNorm",
        "GatherBlockQuantized",
        "HyperConnectionPostMix",
        "HyperConnectionPreMix",
        "LinearAttention",
        "LinearAttentionGate",
        "MRotaryEmbedding",
        "MatMulBlockQuantizedFp4Weight",
        "MatMulBlockQuantizedFp8Weight",
        "MatMulNBitsMlp",
        "MatMulNBitsQkv",
        "NGramHashMapping",
        "PackedSparseAttentionIndexer",
        "PagedAttention",
        "ScaledSiLU",
        "SparseAttentionIndexer",
        "SparsePagedAttention",
        "VarlenCausalConvWithState",
        "VarlenNGramHashMapping",
    }
)


def too_new(model: onnx.ModelProto) -> tuple[str, ...]:
    """The layers that it does not load, by the names of their nodes before they were quantized."""
    blocks = [(node.name, _bits(node)) for node in model.graph.node if node.op_type == "MatMulNBits"]
    # ONNX Runtime's quantizer adds the bits to the name.
    return tuple(name.removesuffix(f"_Q{bits}") for name, bits in blocks if bits != BLOCK_BITS)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators in a graph; 0 where it has none."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)


def newer_format(model: onnx.ModelProto) -> str:
    """What of a graph's format is newer than it loads, in words; empty where nothing is."""
    faults = []
    if opset_of(model) > OPSET:
        faults.append(f"opset {opset_of(model)} is newer than its ONNX Runtime {RUNTIME} loads ({OPSET})")
    if model.ir_version > IR_VERSION:
        faults.append(f"IR version {model.ir_version} is newer than its ONNX Runtime {RUNTIME} loads ({IR_VERSION})")
    if operators := newer_operators(model):
        faults.append(f"its ONNX Runtime {RUNTIME} has no {', '.join(operators)}")
    return ", ".join(faults)


def newer_operators(model: onnx.ModelProto) -> list[str]:
    """Operators of ONNX Runtime's own that it has not."""
    nodes = (node for body in bodies(model) for node in body.node)
    return sorted({node.op_type for node in nodes if node.domain == OWN and node.op_type in YOUNGER})


def _bits(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "bits"), BLOCK_BITS)
