"""Batch invariance: a row gets the same answer alone and among others.

A server that merges requests of several tenants needs it: without, one tenant's words change another's answer.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from export.batch_proof.batch_composition import BatchComposition, batch_compositions
from export.definition import Definition
from export.definition.gate import BATCH_LEAST
from export.definition.tensor import Array, Feed
from export.errors import ExportError
from export.inference.cosine import loud_of, number_agreement, row_cosine
from export.inference.session import Session

# By how much a row may be longer or shorter in company, as a part of the longer one. 8 bits in blocks round by more
# than FP32 does, and more in length than in direction.
LENGTHS: Final = 0.05


class InvarianceError(ExportError):
    """A model that is said to be batch-invariant is not."""


def check_invariant(definition: Definition, session: Session) -> None:
    """Refuse a model whose definition says wrongly that it is batch-invariant.

    Args:
        definition: with samples, and perhaps calibration inputs, that have rows of one shape.
        session: the export.

    Raises:
        InvarianceError: it is not. Says by how much.
        DefinitionError: no two rows of one shape are there to find out with.
    """
    if not definition.serving.batch_invariant or not definition.batched:
        return
    got = batch_cosine_min(lambda feed: list(session.predict(feed).values()), batch_compositions(definition))
    # Written so that a NaN, which compares false with everything, is refused.
    if not got >= BATCH_LEAST:
        raise InvarianceError(
            f"{definition.name}: serving.batch_invariant: expected each row's answer to be the same alone and in a "
            f"batch (a cosine of {BATCH_LEAST} or more), got {got:.4f}. Leave batch_invariant out: then requests of "
            "different tenants are not merged"
        )


def batch_cosine_min(
    answers: Callable[[Feed], Sequence[Array]], batch_compositions: Iterable[BatchComposition]
) -> float:
    """The smallest cosine of a row's answer alone to its answer in company, in any output.

    See `export.inference.cosine`.

    A cosine does not see how long rows are: -1 where that differs by more than 5 %. Of a single number it sees the sign
    alone: there it is `number_agreement`. Integers and words are the same, or it is -1. NaN where an answer is not
    finite.

    Args:
        answers: the outputs for a feed, each [rows, ...].
        batch_compositions: rows alone and together.
    """
    worst = 1.0
    for alone, together in batch_compositions:
        for singles, merged in zip(zip(*map(answers, alone), strict=True), answers(together), strict=True):
            worst = float(np.minimum(worst, _agreement([single[0] for single in singles], merged)))
    return worst


def _agreement(alone: Sequence[Array], together: Array) -> float:
    pairs = list(zip(alone, together, strict=True))
    if any(np.shape(one) != np.shape(other) for one, other in pairs):
        return -1.0
    if together.dtype.kind != "f":
        return 1.0 if all(np.array_equal(one, other) for one, other in pairs) else -1.0
    if together[0].size == 1:
        # Beside a number near 0, what the others are like: rounding is not relative to it.
        typical = float(np.square(together.astype(np.float64)).mean())
        return float(
            np.min([number_agreement(float(one.item()), float(other.item()), typical) for one, other in pairs])
        )
    return float(np.min([_row_agreement(one, other) for one, other in pairs]))


def _row_agreement(first: Array, second: Array) -> float:
    quiet = ~loud_of(second)
    lengths = [float(np.linalg.norm(row[quiet].astype(np.float64))) for row in (first, second)]
    return -1.0 if abs(lengths[0] - lengths[1]) > LENGTHS * max(lengths) else row_cosine(first, second)
