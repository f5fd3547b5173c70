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
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.tensor import FloatArray
from quantize.blocks import BLOCK, Blocks, Constants, in_blocks, on_some_grid, replace_products

STEPS: Final = 15
# Of rests, which lie on both sides of 0: steps to either side, and where 0 is.
MIDDLE: Final = 7
CENTRE: Final = 8
# Of a step: what multiplying and dividing in FP32 leaves.
NEAR: Final = 1e-3


def on_grid(model: onnx.ModelProto, names: Sequence[str]) -> tuple[str, ...]:
    """Which of the named MatMul nodes have weights, FP32 [k, n], that all lie on such a grid."""
    return on_some_grid(model, names, _lies)


def quantize_on_grid(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Rewrite MatMul nodes whose weights lie on a grid, in place. Their grid is kept."""
    replace_products(model, names, _with_sums, _steps_and_rests)


def _lies(matrix: FloatArray) -> bool:
    step, least = _grid(matrix)
    steps = (in_blocks(matrix) - least) / step
    return bool(np.abs(steps - steps.round()).max() < NEAR)


def _grid(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Step and least value of each block, [k / 32, 1, n] each."""
    blocks = in_blocks(matrix)
    least = blocks.min(axis=1, keepdims=True)
    step = (blocks.max(axis=1, keepdims=True) - least) / STEPS
    return np.where(step > 0, step, 1).astype(np.float32), least


def _with_sums(x: str, width: int, constants: Constants) -> Iterator[onnx.NodeProto]:
    name = f"grid/sums{width}"
    if name not in constants:
        ones = np.repeat(np.eye(width // BLOCK, dtype=np.float32), BLOCK, axis=0)
        constants[name] = numpy_helper.from_array(ones, name)
    yield helper.make_node("MatMul", [x, name], [f"{x}/sums"], f"{x}/sums")
    yield helper.make_node("Concat", [x, f"{x}/sums"], [f"{x}/extended"], f"{x}/extended", axis=-1)


def _steps_and_rests(matrix: FloatArray) -> tuple[Blocks, Blocks]:
    step, least = _grid(matrix)
    zero = np.clip(np.round(-least / step), 0, STEPS)
    rests = (least + step * zero)[:, 0]
    reach = np.abs(in_blocks(rests)).max(axis=1, keepdims=True)
    around = np.where(reach > 0, reach / MIDDLE, 1).astype(np.float32)
    below = _blocks(rests, around, np.full_like(around, CENTRE), -around * CENTRE)
    # Without a rest nothing is added: what the kernel adds and takes away again of a step leaves a rounding error.
    below = below._replace(scales=np.where(reach > 0, around, 0))
    return _blocks(matrix, step, zero, least), below


def _blocks(matrix: FloatArray, step: FloatArray, zero: FloatArray, least: FloatArray) -> Blocks:
    return Blocks(len(matrix), np.clip(np.round((in_blocks(matrix) - least) / step), 0, STEPS), step, zero)
