"""Weights that lie on a grid already: in each block of 32 of a column, 16 steps from the block's least value.

Language models are handed on in 4 bits. GGUF's Q4_1 (llama.cpp) has for each block `w = d q + m`, with `q` from 0 to
15. The kernel for 4 bits, MatMulNBits, has a whole zero point `z` in place of `m`. To round `m` to it would move all
weights of a block the same way, by up to `d / 2`. So what rounding leaves is added:

    y = sum_b  d_b  sum_(k in b) x_k (q_k - z_b)  +  sum_b  r_b X_b
    X_b = sum_(k in b) x_k        r_b = m_b + d_b z_b

The second sum is a product as well, with a thirty-second of the rows: the sums X are put behind x, and the rests r
below the matrix, in 15 steps around 0. In a block with weights on both sides of 0 no rest is over half a step. In one
with weights on one side it may be many steps, which are rounded coarsely, and with it those of the 32 blocks beside it:
a matrix is taken only where no rest is over half the coarsest step of these 32, so that a weight is off by at most a
28th of that step.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.definition.tensor import FloatArray
from quantize.quantizing.block_products import BLOCK, Blocks, Constants, in_blocks, on_some_grid, replace_products

STEPS: Final = 15
# Of rests, which lie on both sides of 0: steps to either side, and where 0 is.
MIDDLE: Final = 7
CENTRE: Final = 8
# Of a step: what multiplying and dividing in FP32 leaves.
NEAR: Final = 1e-3


def on_grid(model: onnx.ModelProto, names: Sequence[str]) -> tuple[str, ...]:
    """Which of the named MatMul nodes have weights, FP32 [k, n], that all lie on such a grid and are kept on it."""
    return on_some_grid(model, names, _lies)


def quantize_on_grid(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Rewrite MatMul nodes whose weights lie on a grid, in place. Their grid is kept."""
    replace_products(model, names, _with_sums, _steps_and_rests)


def _lies(matrix: FloatArray) -> bool:
    step, least = _grid(matrix)
    steps = (in_blocks(matrix) - least) / step
    if np.abs(steps - steps.round()).max() >= NEAR:
        return False
    _, rests = _zeros_and_rests(step, least)
    steep = np.where(np.ptp(in_blocks(matrix), axis=1) > 0, step[:, 0], 0)
    coarsest = in_blocks(steep).max(axis=1)
    return bool((np.abs(in_blocks(rests)).max(axis=1) <= coarsest * (0.5 + NEAR)).all())


def _grid(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Step and least value of each block, [k / 32, 1, n] each. A block of one value is a step from 0."""
    blocks = in_blocks(matrix)
    least, most = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    constant = np.where(least == 0, 1, np.abs(least))
    step = np.where(most > least, (most - least) / STEPS, constant).astype(np.float32)
    return step, np.where(most > least, least, np.minimum(least, 0))


def _zeros_and_rests(step: FloatArray, least: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The zero point of each block, [k / 32, 1, n], and what it leaves of the least value, [k / 32, n]."""
    zero = np.clip(np.round(-least / step), 0, STEPS)
    return zero, (least + step * zero)[:, 0]


def _with_sums(x: str, width: int, constants: Constants) -> Iterator[onnx.NodeProto]:
    name = f"grid/sums{width}"
    if name not in constants:
        ones = np.repeat(np.eye(width // BLOCK, dtype=np.float32), BLOCK, axis=0)
        constants[name] = numpy_helper.from_array(ones, name)
    yield helper.make_node("MatMul", [x, name], [f"{x}/sums"], f"{x}/sums")
    yield helper.make_node("Concat", [x, f"{x}/sums"], [f"{x}/extended"], f"{x}/extended", axis=-1)


def _steps_and_rests(matrix: FloatArray) -> tuple[Blocks, Blocks]:
    step, least = _grid(matrix)
    zero, rests = _zeros_and_rests(step, least)
    reach = np.abs(in_blocks(rests)).max(axis=1, keepdims=True)
    around = np.where(reach > 0, reach / MIDDLE, 1).astype(np.float32)
    below = _blocks(rests, around, np.full_like(around, CENTRE), -around * CENTRE)
    # Without a rest nothing is added: what the kernel adds and takes away again of a step leaves a rounding error.
    below = below._replace(scales=np.where(reach > 0, around, 0))
    return _blocks(matrix, step, zero, least), below


def _blocks(matrix: FloatArray, step: FloatArray, zero: FloatArray, least: FloatArray) -> Blocks:
    return Blocks(len(matrix), np.clip(np.round((in_blocks(matrix) - least) / step), 0, STEPS), step, zero)
