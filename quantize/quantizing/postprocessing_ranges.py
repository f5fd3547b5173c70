"""Postprocessing of a statically quantized graph: no range is shared by what lies behind the last layers with weights.

One range for a tensor is one step for all of its channels. Example: boxes reach 640, scores reach 1, and both are
joined. Then a step is 2.5, and every score is 0. Nothing behind the last layers gains from INT8, so all of it stays
FP32 (`quantize.graph.postprocessing`). The sums of a last Gemm or MatMul stay FP32, too: ONNX Runtime's kernels need no
range for them. The kernel for convolutions needs one, so a convolution whose channels need their own steps stays FP32.
"""

from collections.abc import Collection, Iterable
from typing import Final

import numpy as np
import onnx

from export.definition.tensor import Feed
from quantize.accuracy.output_slices import Slices
from quantize.graph.node_inputs import node_inputs
from quantize.graph.postprocessing import last_layers
from quantize.quantizing.activation_ranges import U8_STEPS, values_of

PRODUCTS: Final = ("Gemm", "MatMul")
CONVOLUTIONS: Final = ("Conv", "ConvTranspose")
# So many steps fit into what a channel varies by, or it has too few values left: 6 leave an error of a twentieth.
STEPS_LEAST: Final = 6
# A channel that varies by less than this part of the liveliest is still.
STILL: Final = 1e-6


def coarse_layers(model: onnx.ModelProto, feeds: Iterable[Feed], excluded: Collection[str]) -> dict[str, str]:
    """Last convolutions, in some channel of whose output one step for all is too coarse; and how coarse, in words.

    Args:
        model: an FP32 graph, as it is quantized.
        feeds: calibration inputs.
        excluded: nodes that are not quantized; behind them is an end, too.
    """
    floats = {one.name for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT}
    last = {
        name: node
        for name, node in last_layers(model.graph, excluded).items()
        if node.op_type in CONVOLUTIONS and node.input[1] in floats
    }
    sums: dict[str, Slices] = {}
    for values in values_of(model, list(last), feeds):
        for name, value in values.items():
            channels = sums.setdefault(name, Slices(1, value.shape[1]))
            channels.add(value.astype(np.float64), value.astype(np.float64))
    found = {}
    for name, channels in sums.items():
        step = channels.reach / U8_STEPS
        spreads = [one.spread for one in channels.found() if one.spread > STILL * channels.reach]
        if spreads and min(spreads) < STEPS_LEAST * step:
            found[last[name].name] = (
                f"{last[name].name}: one range for all channels has steps of {step:.2g}, and one varies by "
                f"{min(spreads):.2g}"
            )
    return found


def bypass(model: onnx.ModelProto, chosen: Collection[str], ends: Collection[str]) -> None:
    """Have ends read what was computed and not its steps, in place, where no kernel needs those.

    Args:
        model: a graph with QuantizeLinear and DequantizeLinear around what is quantized.
        chosen: names of the nodes that are.
        ends: names of nodes that are not, besides which the graph's outputs are ends.
    """
    graph = model.graph
    given = {output.name for output in graph.output}
    producers = {name: node for node in graph.node for name in node.output}
    for node in [one for one in graph.node if one.op_type == "QuantizeLinear"]:
        producer = producers.get(node.input[0])
        # A convolution that gives no steps is none in INT8.
        if producer is not None and producer.name in chosen and producer.op_type not in PRODUCTS:
            continue
        for back in [one for one in graph.node if node.output[0] in one.input and one.op_type == "DequantizeLinear"]:
            for reader in [one for one in graph.node if one.name in ends]:
                _read(reader, back.output[0], node.input[0])
            if back.output[0] in given and producer is not None:
                _give(graph, producer, node.input[0], back)
    _drop_unread(graph, given)


def _read(node: onnx.NodeProto, before: str, after: str) -> None:
    node.input[:] = [after if name == before else name for name in node.input]


def _give(graph: onnx.GraphProto, producer: onnx.NodeProto, computed: str, back: onnx.NodeProto) -> None:
    """Make an output of the graph what was computed; what reads it in steps goes on doing so."""
    name, steps = back.output[0], f"{back.output[0]}/steps"
    back.output[0] = steps
    producer.output[:] = [name if one == computed else one for one in producer.output]
    for node in graph.node:
        _read(node, name, steps)
        _read(node, computed, name)


def _drop_unread(graph: onnx.GraphProto, given: Collection[str]) -> None:
    """Take out what turns numbers into steps and back for nobody."""
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in graph.node for name in node_inputs(node)} | {*given}
        for node in [one for one in graph.node if one.op_type == operator and one.output[0] not in read]:
            graph.node.remove(node)
