"""Cosines: how close two answers are, row by row.

Numbers so large that they hide all others, such as logits masked with -1e9, are compared by themselves.
"""

from typing import Final

import numpy as np

from export.definition.tensor import Array, FloatArray

# A number of a row hides smaller ones where it is above the first and that many times the next smaller one: what masks
# a word or a move, as -1e9 does, or a pressure in pascals beside a temperature.
LOUD: Final = 1e3
APART: Final = 100.0


def cosine(answers: FloatArray, reference: FloatArray) -> FloatArray:
    """Cosine of each row with the row opposite, [n, ...] twice -> [n]. Does not rely on rows of length 1.

    Of a row of zeros, which has no direction: 1 with another, else 0. Where some numbers of the reference hide the
    others, the least of the others' cosine and of `number_agreement` of each that hides them.
    """
    # Row by row: the rows of a language model's answers are millions of numbers long, and twice that in FP64.
    return np.array([row_cosine(*rows) for rows in zip(answers, reference, strict=True)], dtype=np.float32)


def row_cosine(answer: Array, reference: Array) -> float:
    """As `cosine`, of one row; NaN, which every gate refuses, where something is no number."""
    one, other = (row.ravel().astype(np.float64) for row in (answer, reference))
    # What masks may have no end; the same on both sides, it is agreement.
    masked = np.isinf(other) & (one == other)
    if masked.any():
        return np.nan if masked.all() else row_cosine(one[~masked], other[~masked])
    loud = loud_of(other)
    if not loud.any():
        return _direction(one, other)
    agreements = [number_agreement(*pair) for pair in zip(one[loud].tolist(), other[loud].tolist(), strict=True)]
    quiet = ~loud
    return float(np.min([*agreements, _direction(one[quiet], other[quiet])]))


def number_agreement(one: float, other: float, typical: float = 0.0) -> float:
    """Of two numbers 1 - (a - b)^2 / 2ab, which is the cosine of rows of one length that are as far apart.

    Args:
        one: the first.
        other: the second.
        typical: what the square of such numbers is like: beside one near 0, rounding is not relative to it.
    """
    if not np.isfinite([one, other]).all():
        return np.nan
    if one == other:
        return 1.0
    scale = max(abs(one * other), typical)
    return float(np.maximum(-1, 1 - (one - other) * (one - other) / (2 * scale))) if scale else -1.0


def loud_of(row: Array) -> Array:
    """Which numbers of a row hide others; bool, of the row's shape."""
    size = np.abs(row)
    if not size.max(initial=0) > LOUD or not np.isfinite(size).all():
        return np.zeros(row.shape, np.bool_)
    ranked = np.unique(size[size > 0])
    steps = np.flatnonzero((ranked[1:] > LOUD) & (ranked[1:] > APART * ranked[:-1]))
    bound = ranked[steps[0] + 1] if len(steps) else np.inf
    return size >= bound


def _direction(one: Array, other: Array) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        length = float(np.linalg.norm(one) * np.linalg.norm(other))
        return float(one @ other / length) if length else float((one == other).all())
