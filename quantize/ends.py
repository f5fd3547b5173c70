"""The ends of a statically quantized graph: no range is shared by what lies behind the last layers with weights.

One range for a tensor is one step for all of its channels: of boxes that reach 640 and scores that reach 1, joined, a
step is 2.5 and every score 0. Behind the last layers there is nothing to gain from INT8, so that all of it stays FP32
(`quantize.tail`). The sums of a last product leave it in FP32, too, as ONNX Runtime's kernels for Gemm and MatMul do
not need a range for them. The kernel for convolutions does: one whose channels need steps of their own stays FP32.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import onnx

from export.tensor import Feed
from quantize.observe import U8_STEPS, values_of
from quantize.slices import Slices
from quantize.tail import last_layers

PRODUCTS: Final = ("Gemm", "MatMul")
CONVOLUTIONS: Final = ("Conv", "ConvTranspose")
# So many steps fit into what a channel varies by, or it has too few values left: 6 leave an error of a twentieth.
STEPS_LEAST: Final = 6
# A channel that varies by less than this part of the liveliest is still.
STILL: Final = 1e-6


def coarse_layers(model: onnx.ModelProto, feeds: Iterable[Feed]) -> dict[str, str]:
    """Last convolutions, in some channel of whose output one step for all is too coarse; and how coarse, in words.

    Args:
        model: an FP32 graph, as it is quantized.
        feeds: calibration inputs.
    """
    last = {name: node for name, node in last_layers(model.graph).items() if node.op_type in CONVOLUTIONS}
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


def give_sums(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Take away the ranges of what the named products put out, in place: QuantizeLinear and DequantizeLinear go."""
    graph = model.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    given = {output.name for output in graph.output}
    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name not in names or node.op_type not in PRODUCTS:
            continue
        steps = readers.get(node.output[0], [])
        if not steps or any(step.op_type != "QuantizeLinear" for step in steps):
            continue
        back = [one for step in steps for one in readers.get(step.output[0], [])]
        if any(one.op_type != "DequantizeLinear" for one in back):
            continue
        outputs = [one.output[0] for one in back]
        name = next((one for one in outputs if one in given), node.output[0])
        for output in outputs:
            for reader in readers.get(output, ()):
                reader.input[:] = [name if one == output else one for one in reader.input]
        node.output[0] = name
        gone += [*steps, *back]
    for node in gone:
        graph.node.remove(node)
