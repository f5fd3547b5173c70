"""Weights that lie on a grid already: in each block of 32 of a column, 16 steps from the block's least value.

Language models are handed on in 4 bits. GGUF's Q4_1 (llama.cpp) has for each block `w = d q + m`, with `q` from 0 to
15. The kernel for 4 bits, MatMulNBits, has a whole zero point `z` in place of `m`. To round `m` to it would move all
weights of a block the same way, by up to `d / 2`. So what rounding leaves is added:

    y = sum_b  d_b  sum_(k in b) x_k (q_k - z_b)  +  sum_b  r_b X_b
    X_b = sum_(k in b) x_k        r_b = m_b + d_b z_b

The second sum is a product as well, with a thirty-second of the rows: the sums X are put behind x, and the rests r
below the matrix, in 15 steps around 0. In a block with weights on both sides of 0 no rest is over half a step; where
all are such, a weight is off by at most a 28th of the coarsest step of 32 blocks.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.tensor import FloatArray
from quantize.per_token import CONTRIB, replace_nodes

BLOCK: Final = 32
STEPS: Final = 15
# Of rests, which lie on both sides of 0: steps to either side, and where 0 is.
MIDDLE: Final = 7
CENTRE: Final = 8
# Of a step: what multiplying and dividing in FP32 leaves.
NEAR: Final = 1e-3
# Of MatMulNBits: multiply in int8, not in FP32.
INT8_ACCURACY: Final = 4

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def on_grid(model: onnx.ModelProto, names: Sequence[str]) -> tuple[str, ...]:
    """Which of the named MatMul nodes have weights, FP32 [k, n], that all lie on such a grid."""
    weights = {one.name: one for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.name in names and node.op_type == "MatMul"]
    return tuple(node.name for node in products if _lies(numpy_helper.to_array(weights[node.input[1]])))


def quantize_on_grid(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Rewrite MatMul nodes whose weights lie on a grid, in place. Their grid is kept."""
    weights = {one.name: one for one in model.graph.initializer}
    constants: dict[str, onnx.TensorProto] = {}
    extended: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        x, matrix = node.input[0], numpy_helper.to_array(weights[node.input[1]])
        if x not in extended:
            extended.add(x)
            nodes += _with_sums(x, len(matrix), constants)
        nodes.append(_product(node, matrix, constants))
    replace_nodes(model.graph, nodes, constants.values())
    if all(entry.domain != CONTRIB for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def _lies(matrix: FloatArray) -> bool:
    if matrix.ndim != 2 or len(matrix) % BLOCK:
        return False
    step, least = _grid(matrix)
    steps = (_blocks(matrix) - least) / step
    return bool(np.abs(steps - steps.round()).max() < NEAR)


def _blocks(matrix: FloatArray) -> FloatArray:
    """[k, n] -> [k / 32, 32, n]; missing rows at the end are zeros."""
    short = -len(matrix) % BLOCK
    return np.pad(matrix, ((0, short), (0, 0))).reshape(-1, BLOCK, matrix.shape[1])


def _grid(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Step and least value of each block, [k / 32, 1, n] each."""
    blocks = _blocks(matrix)
    least = blocks.min(axis=1, keepdims=True)
    step = (blocks.max(axis=1, keepdims=True) - least) / STEPS
    return np.where(step > 0, step, 1).astype(np.float32), least


def _with_sums(x: str, width: int, constants: dict[str, onnx.TensorProto]) -> Iterator[onnx.NodeProto]:
    name = f"grid/sums{width}"
    if name not in constants:
        ones = np.repeat(np.eye(width // BLOCK, dtype=np.float32), BLOCK, axis=0)
        constants[name] = numpy_helper.from_array(ones, name)
    yield helper.make_node("MatMul", [x, name], [f"{x}/sums"], f"{x}/sums")
    yield helper.make_node("Concat", [x, f"{x}/sums"], [f"{x}/extended"], f"{x}/extended", axis=-1)


def _product(node: onnx.NodeProto, matrix: FloatArray, constants: dict[str, onnx.TensorProto]) -> onnx.NodeProto:
    step, least = _grid(matrix)
    zero = np.clip(np.round(-least / step), 0, STEPS)
    rests = (least + step * zero)[:, 0]
    reach = np.abs(_blocks(rests)).max(axis=1, keepdims=True)
    around = np.where(reach > 0, reach / MIDDLE, 1).astype(np.float32)
    parts = [_packed(matrix, step, zero, least), _packed(rests, around, np.full_like(around, CENTRE), -around * CENTRE)]
    packed, scales, zeros = (np.concatenate([part[place] for part in parts], axis=1) for place in range(3))
    values = {"weights": packed, "scales": scales.ravel(), "zeros": _nibbles(zeros).ravel()}
    for name, value in values.items():
        constants[f"{node.name}/{name}"] = numpy_helper.from_array(value, f"{node.name}/{name}")
    return helper.make_node(
        "MatMulNBits",
        [f"{node.input[0]}/extended", *(f"{node.name}/{name}" for name in values)],
        list(node.output),
        node.name,
        domain=CONTRIB,
        K=len(matrix) + len(rests),
        N=matrix.shape[1],
        bits=4,
        block_size=BLOCK,
        accuracy_level=INT8_ACCURACY,
    )


def _packed(
    matrix: FloatArray, step: FloatArray, zero: FloatArray, least: FloatArray
) -> tuple[Bytes, FloatArray, Bytes]:
    """Steps u4 [n, blocks, 16], scales FP32 [n, blocks] and zero points u8 [n, blocks], as MatMulNBits takes them."""
    steps = np.clip(np.round((_blocks(matrix) - least) / step), 0, STEPS).astype(np.uint8)
    return _nibbles(steps.transpose(2, 0, 1)), step[:, 0].T.copy(), zero[:, 0].T.astype(np.uint8)


def _nibbles(values: Bytes) -> Bytes:
    """Two numbers to a byte along the last axis, the first one low."""
    even = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)])
    return np.asarray(even[..., 0::2] | even[..., 1::2] << 4, dtype=np.uint8)
