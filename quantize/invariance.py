"""Batch invariance: a row gets the same answer alone and among others.

A server that merges requests of several tenants needs it: without, one tenant's words change another's answer.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from export.gate import BATCH_COSINE
from export.tensor import Array, Feed, FloatArray
from quantize.gate import AtLeast
from quantize.task import Company

# Not exactly 1: sums are made in another order at another batch size. Dynamic quantization: .98.
BATCH_LIMIT: Final = AtLeast(BATCH_COSINE, 0.9999)
# By how much a row may be longer or shorter in company, as a part of the longer one. 8 bits in blocks round by more
# than FP32 does, and more in length than in direction.
LENGTHS: Final = 0.05


def batch_cosine_min(answers: Callable[[Feed], Sequence[Array]], companies: Iterable[Company]) -> float:
    """The smallest cosine of a row's answer alone to its answer in company, in any output.

    A cosine does not see how long rows are: -1 where that differs by more than 5 %. Of a single number it sees the sign
    alone: there it is 1 - (a - b)^2 / 2ab, as of rows of the same length. NaN where an answer is not finite.

    Args:
        answers: the outputs for a feed, each [rows, ...].
        companies: rows alone and together.
    """
    worst = 1.0
    for alone, together in companies:
        for singles, merged in zip(zip(*map(answers, alone), strict=True), answers(together), strict=True):
            worst = float(np.minimum(worst, _agreement([single[0] for single in singles], merged)))
    return worst


def _agreement(alone: Sequence[Array], together: Array) -> float:
    if any(one.shape != other.shape for one, other in zip(alone, together, strict=True)):
        return -1.0
    single = together[0].size == 1
    # Words, and single labels, have no direction: they are the same or not.
    if together.dtype.kind not in "biuf" or (single and together.dtype.kind != "f"):
        return 1.0 if (np.stack(alone) == together).all() else -1.0
    pairs = list(zip(alone, together, strict=True))
    if single:
        # Beside a number near 0, what the others are like: rounding is not relative to it.
        typical = float(np.square(together.astype(np.float64)).mean())
        return float(
            np.min([_number_agreement(float(one.item()), float(other.item()), typical) for one, other in pairs])
        )
    return float(np.min([_row_agreement(one, other) for one, other in pairs]))


def _number_agreement(one: float, other: float, typical: float) -> float:
    if not np.isfinite([one, other]).all():
        return np.nan
    if one == other:
        return 1.0
    scale = max(abs(one * other), typical)
    return float(np.maximum(-1, 1 - (one - other) * (one - other) / (2 * scale))) if scale else -1.0


def _row_agreement(first: Array, second: Array) -> float:
    lengths = [float(np.linalg.norm(row.astype(np.float64))) for row in (first, second)]
    # Of what is no number: NaN, which the gate refuses.
    return -1.0 if abs(lengths[0] - lengths[1]) > LENGTHS * max(lengths) else _row_cosine(first, second)


def cosine(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosine of each row with the row opposite, [n, ...] twice -> [n]. Does not rely on rows of length 1.

    Of a row of zeros, which has no direction: 1 with another, else 0.
    """
    # Row by row: the rows of a language model's answers are millions of numbers long, and twice that in FP64.
    return np.array([_row_cosine(*rows) for rows in zip(first, second, strict=True)], dtype=np.float32)


def _row_cosine(first: FloatArray, second: FloatArray) -> float:
    one, other = (row.ravel().astype(np.float64) for row in (first, second))
    # Of what is no number: NaN, which every gate refuses.
    with np.errstate(invalid="ignore"):
        length = float(np.linalg.norm(one) * np.linalg.norm(other))
        return float(one @ other / length) if length else float((one == other).all())
