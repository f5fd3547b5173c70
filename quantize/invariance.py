"""Batch invariance: a row gets the same answer alone and among others.

A server that merges requests of several tenants needs it: without, one tenant's words change another's answer.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from export.gate import BATCH_COSINE
from export.tensor import FloatArray
from quantize.gate import AtLeast
from quantize.task import Company, Runner

# Not exactly 1: sums are made in another order at another batch size. Dynamic quantization: .98.
BATCH_LIMIT: Final = AtLeast(BATCH_COSINE, 0.9999)


def batch_cosine_min(model: Runner, companies: Iterable[Company]) -> float:
    """The smallest cosine of a row's answer alone to its answer in company. NaN where an answer is not finite."""
    worst = 1.0
    for alone, together in companies:
        answers = np.concatenate([model.run(feed) for feed in alone])
        worst = float(np.minimum(worst, cosine(answers, model.run(together)).min()))
    return worst


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
