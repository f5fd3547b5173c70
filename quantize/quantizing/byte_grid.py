"""Weights that lie on a grid of 8 bits already: in each block of 32 of a column, 127 steps to either side of 0.

GGUF's Q8_0 (llama.cpp) has for each block `w = d q`, with `q` from -127 to 127: so are output products kept where the
other matrices have 4 bits. MatMulNBits has no 8 bits in ONNX Runtime 1.19, and where it has, rounds to a grid of its
own. But 8 bits are 4 and 4, q = 16 (h - 8) + l, with h and l from 0 to 15:

    y = sum_b  16 d_b  sum_(k in b) x_k (h_k - 8)  +  sum_b  d_b  sum_(k in b) x_k l_k

which is one product of 4 bits: x is put behind itself, and l below h. The kernel rounds both x alike, so that y is
what the same kernel would make of 8 bits.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper

from export.definition.tensor import FloatArray
from quantize.quantizing.block_products import Blocks, Constants, in_blocks, on_some_grid, replace_products
from quantize.quantizing.four_bit_grid import NEAR

REACH: Final = 127
HALF: Final = 16
CENTRE: Final = 8


def on_byte_grid(model: onnx.ModelProto, names: Sequence[str]) -> tuple[str, ...]:
    """Which of the named MatMul nodes have weights, FP32 [k, n], that all lie on such a grid."""
    return on_some_grid(model, names, _lies)


def quantize_on_byte_grid(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Rewrite MatMul nodes whose weights lie on such a grid, in place. Their grid is kept."""
    replace_products(model, names, _twice, _halves)


def _lies(matrix: FloatArray) -> bool:
    steps, _ = _on_grid(matrix)
    return bool(np.abs(steps - steps.round()).max() < NEAR)


def _on_grid(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights [k / 32, 32, n] in steps of their block, and the step of each, [k / 32, 1, n]: 0 where all are 0."""
    blocks = in_blocks(matrix)
    step = (np.abs(blocks).max(axis=1, keepdims=True) / REACH).astype(np.float32)
    return (blocks / np.where(step > 0, step, 1)).astype(np.float32), step


def _twice(x: str, _width: int, _constants: Constants) -> Iterator[onnx.NodeProto]:
    yield helper.make_node("Concat", [x, x], [f"{x}/twice"], f"{x}/twice", axis=-1)


def _halves(matrix: FloatArray) -> tuple[Blocks, Blocks]:
    steps, step = _on_grid(matrix)
    high, low = np.divmod(steps.round() + CENTRE * HALF, HALF)
    rows, none = len(matrix), np.zeros_like(step)
    return Blocks(rows, high, step * HALF, np.full_like(step, CENTRE)), Blocks(rows, low, step, none)
