"""Per-token quantization: matrix products of u8 activations and s8 weights, written as ONNX Runtime's integer kernels.

A product `y = x W + b` becomes

    q = clip(round(x / s) + z, 0, 255)          u8   QuantizeLinear
    y = s w (q - z) Wq + b                      FP32 MatMulIntegerToFloat

with `Wq` s8 and `w` a scale for each of its columns. Where calibration gives the range, `s` and `z` are constants.

Behind GELU that would be ruinous: its tail is so long that a step fit for the largest value of all is too coarse for
all other tokens. But its lower end is known: L = -0.17. So each token t gets its own step from its own maximum

    s_t = max(max_t / (255 - z), -L / z),   z = 16

and one zero point serves all. Nothing is clipped: L / s_t >= -z and max_t / s_t <= 255 - z. The kernel runs with a
scale of 1 and its rows are multiplied by s_t: y_t = s_t (w (q_t - z) Wq) + b. The error of x is at most s_t / 2.
No token's answer depends on another's, so a batch changes nothing; dynamic quantization has one range a batch.

The idea of a scale a token is that of ZeroQuant (Yao et al., NeurIPS 2022, "token-wise quantization").
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph.onnx_graph import GraphError
from quantize.graph.layers import weight_place
from quantize.graph.node_inputs import node_inputs
from quantize.graph.node_replacement import CONTRIB, replace_nodes
from quantize.quantizing.activation_ranges import U8_STEPS, Seen

# Below what each operator never goes; rounded away from zero. GELU's minimum is -0.16997.
LEAST: Final[Mapping[str, float]] = {"Gelu": -0.1701, "Relu": 0.0}
# Costs 6 % of the resolution of tokens with large values; a smaller one makes the floor of s_t coarser.
GELU_ZERO: Final = 16
# Of a token of zeros behind ReLU; any positive number would do.
FLOOR: Final = 1e-6
S8_STEPS: Final = 127
# A small table is left as it is: four more nodes would cost a lone request more than they save.
TABLE_BYTES: Final = 1 << 20
FLOAT_BYTES: Final = 4
# ReduceMax takes its axes as an input since then.
LEAST_OPSET: Final = 18


def is_per_token(producer: str) -> bool:
    """Whether an activation that this operator computes gets a scale a token."""
    return producer in LEAST


def columns_s8(weights: np.ndarray[Any, Any], axis: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Weights as s8 with a scale for each slice along `axis`: FP32 [k, n] -> s8 [k, n] and FP32 scales."""
    scale = np.abs(weights).max(axis=axis, keepdims=True) / S8_STEPS
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    steps = np.clip(np.round(weights / scale), -S8_STEPS, S8_STEPS).astype(np.int8)
    return steps, scale.squeeze(axis)


def token_grid(producer: str) -> tuple[int, float]:
    """Zero point and least step, `z` and `-L / z`, of activations behind this operator."""
    least = LEAST[producer]
    return (GELU_ZERO, -least / GELU_ZERO) if least < 0 else (0, FLOOR)


def quantize_per_token(model: onnx.ModelProto, names: Sequence[str], seen: Mapping[str, Seen]) -> None:
    """Rewrite the named MatMul and Gather nodes of an FP32 graph, in place.

    Args:
        model: the graph.
        names: nodes with constant weights.
        seen: what calibration saw of each activation that does not get a scale a token.

    Raises:
        GraphError: the graph's opset is older than the operators written here.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < LEAST_OPSET:
        raise GraphError(f"per-token quantization: expected a graph of opset {LEAST_OPSET} or newer, got {opset}")
    rewriter = _Rewriter(model.graph, frozenset(names), seen)
    nodes = [new for node in model.graph.node for new in rewriter.rewrite(node)]
    replace_nodes(model.graph, nodes, rewriter.constants.values())
    if all(entry.domain != CONTRIB for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


class _Rewriter:
    def __init__(self, graph: onnx.GraphProto, names: frozenset[str], seen: Mapping[str, Seen]) -> None:
        self.constants: dict[str, onnx.TensorProto] = {}
        self._names, self._seen = names, seen
        self._weights = {one.name: one for one in graph.initializer}
        self._producers = {output: node.op_type for node in graph.node for output in node.output}
        self._users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node_inputs(node):
                self._users.setdefault(name, []).append(node)
        self._given = {output.name for output in graph.output}
        self._quantized: set[str] = set()
        self._fused: set[str] = set()

    def rewrite(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes that take this one's place."""
        if node.name in self._fused:
            return
        place = weight_place(node, self._weights) if node.name in self._names else None
        if place is None:
            yield self._before_normalization(node)
        elif node.op_type == "Gather":
            yield from self._table(node)
        elif is_per_token(self._producers.get(node.input[0], "")):
            yield from self._token_product(node)
        else:
            yield from self._product(node)

    def _before_normalization(self, node: onnx.NodeProto) -> onnx.NodeProto:
        # ONNX Runtime 1.31 fuses Add and LayerNormalization into a kernel five times slower than the two alone.
        # Sum computes the same and is not fused.
        users = self._users.get(node.output[0], [])
        if node.op_type == "Add" and [user.op_type for user in users] == ["LayerNormalization"]:
            return helper.make_node("Sum", list(node.input), list(node.output), node.name)
        return node

    def _product(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        x = node.input[0]
        scale, zero = self._seen[x].scale_and_zero()
        step, offset = self._constant(f"{x}/scale", scale), self._constant(f"{x}/zero", zero)
        if x not in self._quantized:
            self._quantized.add(x)
            yield helper.make_node("QuantizeLinear", [x, step, offset], [f"{x}/u8"], f"{x}/quantize")
        bias, output = self._bias(node)
        yield self._kernel(node, f"{x}/u8", step, offset, bias, output)

    def _token_product(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        x = node.input[0]
        zero, floor = token_grid(self._producers[x])
        offset = self._constant(f"token/zero{zero}", np.uint8(zero))
        if x not in self._quantized:
            self._quantized.add(x)
            yield from self._token_quantize(x, offset, zero, floor, self._columns(node))
        one = self._constant("token/one", np.float32(1))
        yield self._kernel(node, f"{x}/u8", one, offset, "", f"{node.name}/steps")
        yield helper.make_node("Mul", [f"{node.name}/steps", f"{x}/step"], list(node.output), f"{node.name}/scaled")

    def _token_quantize(self, x: str, offset: str, zero: int, floor: float, columns: int) -> Iterator[onnx.NodeProto]:
        last = self._constant("token/last", np.array([-1], np.int64))
        share = self._constant(f"token/share{zero}", np.float32(1 / (U8_STEPS - zero)))
        least = self._constant(f"token/floor{zero}", np.float32(floor))
        rows = self._constant(f"token/rows{columns}", np.array([-1, columns], np.int64))
        made = {
            "largest": ("ReduceMax", [x, last]),
            "share": ("Mul", [f"{x}/largest", share]),
            "step": ("Max", [f"{x}/share", least]),
            # QuantizeLinear takes a scale for each slice of an axis, so the tokens become the first.
            "steps": ("Reshape", [f"{x}/step", last]),
            "rows": ("Reshape", [x, rows]),
            "count": ("Shape", [f"{x}/steps"]),
            "zeros": ("Expand", [offset, f"{x}/count"]),
        }
        for output, (operator, inputs) in made.items():
            yield helper.make_node(operator, inputs, [f"{x}/{output}"], f"{x}/{output}")
        scaled = [f"{x}/rows", f"{x}/steps", f"{x}/zeros"]
        yield helper.make_node("QuantizeLinear", scaled, [f"{x}/u8rows"], f"{x}/quantize", axis=0)
        yield helper.make_node("Shape", [x], [f"{x}/shape"], f"{x}/shape")
        yield helper.make_node("Reshape", [f"{x}/u8rows", f"{x}/shape"], [f"{x}/u8"], f"{x}/u8")

    def _table(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        table = numpy_helper.to_array(self._weights[node.input[0]])
        if table.size * FLOAT_BYTES < TABLE_BYTES:
            yield node
            return
        steps, scale = columns_s8(table, axis=1)
        name, index = node.name, node.input[1]
        # Named by the table, which others may read, too.
        of = node.input[0]
        rows, scales = self._constant(f"{of}/rows", steps), self._constant(f"{of}/row_scales", scale[:, np.newaxis])
        yield helper.make_node("Gather", [rows, index], [f"{name}/s8"], f"{name}/rows")
        yield helper.make_node("Gather", [scales, index], [f"{name}/scale"], f"{name}/scale")
        yield helper.make_node("Cast", [f"{name}/s8"], [f"{name}/steps"], f"{name}/steps", to=TensorProto.FLOAT)
        yield helper.make_node("Mul", [f"{name}/steps", f"{name}/scale"], list(node.output), name)

    def _kernel(self, node: onnx.NodeProto, x: str, step: str, offset: str, bias: str, output: str) -> onnx.NodeProto:
        steps, scale = columns_s8(numpy_helper.to_array(self._weights[node.input[1]]))
        of = node.input[1]
        weights = self._constant(f"{of}/columns", steps), self._constant(f"{of}/column_scales", scale)
        # The sixth input, the weights' zero point, is left out: it is 0.
        inputs = [x, weights[0], step, weights[1], offset, *(["", bias] if bias else [])]
        return helper.make_node("MatMulIntegerToFloat", inputs, [output], node.name, domain=CONTRIB)

    def _bias(self, node: onnx.NodeProto) -> tuple[str, str]:
        """The constant that is added to a product right after it, which the kernel can do, and the sum's name."""
        users = self._users.get(node.output[0], [])
        if len(users) == 1 and users[0].op_type == "Add" and node.output[0] not in self._given:
            (other,) = [name for name in users[0].input if name != node.output[0]] or [""]
            if other in self._weights and list(self._weights[other].dims) == [self._outputs(node)]:
                self._fused.add(users[0].name)
                return other, users[0].output[0]
        return "", node.output[0]

    def _columns(self, node: onnx.NodeProto) -> int:
        return int(self._weights[node.input[1]].dims[0])

    def _outputs(self, node: onnx.NodeProto) -> int:
        return int(self._weights[node.input[1]].dims[1])

    def _constant(self, name: str, value: Any) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name
