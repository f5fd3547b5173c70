"""Products of 4 bits in blocks: MatMulNBits, where each block of a column of weights has a scale and a zero point."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.definition.tensor import FloatArray
from quantize.graph.node_replacement import CONTRIB, replace_nodes

BLOCK: Final = 32
BITS: Final = 4
# Of MatMulNBits: multiply in int8, not in FP32.
INT8_ACCURACY: Final = 4

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Constants = dict[str, onnx.TensorProto]


class Blocks(NamedTuple):
    """Rows of a matrix [k, n], weight = scale (step - zero).

    `steps` [k / 32, 32, n], whole numbers from 0 to 15, where the last block may have more rows than the matrix;
    `scales` FP32 and `zeros`, from 0 to 15 too, [k / 32, 1, n].
    """

    rows: int
    steps: FloatArray
    scales: FloatArray
    zeros: FloatArray


def on_some_grid(model: onnx.ModelProto, names: Sequence[str], lies: Callable[[FloatArray], bool]) -> tuple[str, ...]:
    """Which of the named MatMul nodes have weights, FP32 [k, n] in whole blocks, of which `lies` is true."""
    weights = {one.name: one for one in model.graph.initializer}
    products = [node for node in model.graph.node if node.name in names and node.op_type == "MatMul"]
    matrices = {node.name: numpy_helper.to_array(weights[node.input[1]]) for node in products}
    return tuple(
        name for name, matrix in matrices.items() if matrix.ndim == 2 and len(matrix) % BLOCK == 0 and lies(matrix)
    )


def in_blocks(matrix: FloatArray) -> FloatArray:
    """[k, n] -> [k / 32, 32, n]; missing rows at the end are zeros."""
    short = -len(matrix) % BLOCK
    return np.pad(matrix, ((0, short), (0, 0))).reshape(-1, BLOCK, matrix.shape[1])


def replace_products(
    model: onnx.ModelProto,
    names: Sequence[str],
    extended: Callable[[str, int, Constants], Iterator[onnx.NodeProto]],
    split: Callable[[FloatArray], Sequence[Blocks]],
) -> None:
    """Make MatMul nodes MatMulNBits nodes, in place.

    Args:
        model: the graph.
        names: of MatMul nodes with weights.
        extended: nodes that make of an activation FP32 [..., k], given by name and with its k, that which is
            multiplied; what the last one of them puts out.
        split: the blocks that it is multiplied with, from the first row to the last one, made of the weights.
    """
    weights = {one.name: one for one in model.graph.initializer}
    constants: Constants = {}
    read: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        x, matrix = node.input[0], numpy_helper.to_array(weights[node.input[1]])
        if x not in read:
            nodes += extended(x, len(matrix), constants)
            read[x] = nodes[-1].output[0]
        nodes.append(_product(node, read[x], split(matrix), constants))
    replace_nodes(model.graph, nodes, constants.values())
    if all(entry.domain != CONTRIB for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def _product(node: onnx.NodeProto, x: str, parts: Sequence[Blocks], constants: Constants) -> onnx.NodeProto:
    # As MatMulNBits takes them: steps u4 [n, blocks, 16], scales FP32 [n, blocks] and zero points u4 [n, blocks].
    steps = np.concatenate([_nibbles(part.steps.transpose(2, 0, 1)) for part in parts], axis=1)
    scales = np.concatenate([part.scales[:, 0].T for part in parts], axis=1)
    zeros = np.concatenate([part.zeros[:, 0].T for part in parts], axis=1)
    values = {"weights": steps, "scales": scales.astype(np.float32).ravel(), "zeros": _nibbles(zeros).ravel()}
    # Named by the weights, which other products may read, too.
    of = node.input[1]
    for name, value in values.items():
        constants[f"{of}/{name}"] = numpy_helper.from_array(value, f"{of}/{name}")
    return helper.make_node(
        "MatMulNBits",
        [x, *(f"{of}/{name}" for name in values)],
        list(node.output),
        node.name,
        domain=CONTRIB,
        K=sum(part.rows for part in parts),
        N=len(steps),
        bits=BITS,
        block_size=BLOCK,
        accuracy_level=INT8_ACCURACY,
    )


def _nibbles(values: FloatArray) -> Bytes:
    """Two whole numbers to a byte along the last axis, the first one low."""
    short = values.shape[-1] % 2
    even = np.pad(values.astype(np.uint8), [(0, 0)] * (values.ndim - 1) + [(0, short)])
    return np.asarray(even[..., 0::2] | even[..., 1::2] << 4, dtype=np.uint8)
