"""The FP32 remainder of an INT8 graph: weights that the recipe does not take, with their bytes and time.

Example, as `fairlane quantize digits` prints it: `1.2 of 94.1 kB stay FP32: Conv`.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime as ort

from export.card import Remainder
from export.definition.tensor import Feed
from export.graph.external_data import graph_bytes
from quantize.graph.postprocessing import postprocessing_nodes

FLOATS: Final[Mapping[int, int]] = {
    onnx.TensorProto.FLOAT: 4,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.DOUBLE: 8,
}
# What hands weights on as they are.
THROUGH: Final = (
    "Cast",
    "Concat",
    "Expand",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# What reads scales and the like of quantized numbers.
SCALED: Final = ("DequantizeLinear", "DynamicQuantizeLSTM", "MatMulIntegerToFloat", "MatMulNBits", "QuantizeLinear")
# How ONNX Runtime calls an operator that it joined with another, or gave another layout.
PREFIXES: Final = ("Fused", "Nhwc")
# Operators that move numbers and compute nothing.
MOVING: Final = ("Constant", "Flatten", *THROUGH)
# Less than this part of the file is nothing to tell of.
LEAST_PART: Final = 0.005
RUNS: Final = 5
# How the end of a graph is called where layers go by their names.
END: Final = ""


def remainders(fp32: onnx.ModelProto, int8: Path, feed: Feed, whys: Mapping[str, str]) -> tuple[Remainder, ...]:
    """What stays FP32 in an INT8 graph, largest first: operators with weights, and the end of a graph.

    Args:
        fp32: the graph that it was made of.
        int8: the file.
        feed: a typical request, to measure the shares of time on.
        whys: reasons by what stays, of the quantizer: names of layers, and END.
    """
    model = onnx.load(int8)
    held = _held(model.graph)
    least = LEAST_PART * graph_bytes(int8)
    spent, took = _times(int8, feed)
    found = [
        Remainder(
            what=operator,
            size_bytes=size,
            time_share=sum(spent[name] for name in spent if _plain(name) == operator) / took,
            why="; ".join(why for name, why in whys.items() if _operator(fp32.graph, name) == operator),
        )
        for operator, size in sorted(held.items(), key=lambda one: one[1], reverse=True)
        if size >= least
    ]
    behind = postprocessing_nodes(fp32.graph)
    there = {node.op_type for node in model.graph.node if node.name in behind} - {*MOVING}
    if END in whys and there:
        share = sum(spent[name] for name in spent if _plain(name) in there) / took
        what = f"{', '.join(sorted(there))} behind the last layers"
        found.append(Remainder(what=what, size_bytes=0, time_share=share, why=whys[END]))
    return tuple(found)


def _operator(graph: onnx.GraphProto, name: str) -> str:
    return next((node.op_type for node in graph.node if node.name == name), "")


def _held(graph: onnx.GraphProto) -> dict[str, int]:
    """Bytes of the FP32 matrices, kernels and tables of a graph, by the operator that reads them first."""
    held: dict[str, int] = {}
    for scope in _scopes(graph):
        readers: dict[str, onnx.NodeProto] = {}
        for node in (node for inner in _scopes(scope) for node in inner.node):
            for name in node.input:
                readers.setdefault(name, node)
        constants = [(one.name, one) for one in scope.initializer]
        constants += [(node.output[0], one.t) for node in scope.node for one in node.attribute if one.name == "value"]
        for name, constant in constants:
            reader = readers.get(name)
            for _ in range(len(scope.node)):
                if reader is None or reader.op_type not in THROUGH or not reader.output:
                    break
                reader = readers.get(reader.output[0])
            if reader is None or reader.op_type in SCALED or len(constant.dims) < 2:
                continue
            held[reader.op_type] = held.get(reader.op_type, 0) + _size(constant)
    return {operator: size for operator, size in held.items() if size}


def _scopes(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and the bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _scopes(body)


def _size(constant: onnx.TensorProto) -> int:
    size = FLOATS.get(constant.data_type, 0)
    for dim in constant.dims:
        size *= dim
    return size


def _plain(operator: str) -> str:
    """An operator's name without what ONNX Runtime put before it."""
    for prefix in (*PREFIXES, *PREFIXES):
        operator = operator.removeprefix(prefix)
    return operator


def _times(path: Path, feed: Feed) -> tuple[dict[str, float], float]:
    """The time that each operator takes of a request, and all of them, in microseconds, on one thread."""
    with tempfile.TemporaryDirectory(prefix="fairlane-profile-") as scratch:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(scratch, "profile"))
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS):
            session.run(None, dict(feed))
        events: Sequence[Any] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: dict[str, float] = {}
    for event in events:
        if event.get("cat") == "Node" and event.get("name", "").endswith("_kernel_time"):
            operator = event["args"]["op_name"]
            spent[operator] = spent.get(operator, 0.0) + event["dur"]
    return spent, max(sum(spent.values()), 1e-9)
