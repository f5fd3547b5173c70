"""Scores of a model on its task, and the gates that INT8 must pass."""

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic.dataclasses import dataclass

from export.definition.tensor import CHECKED, Outcome
from export.errors import DefinitionError

# Scores by name: a figure, or what each sample came to [samples], whose mean is the score and has an interval.
Scores = Mapping[str, float | npt.ArrayLike]

# Scores that every quantized definition has, whatever it evaluates: of an output to FP32's, and the smallest of
# a row alone to the same row in company. And what is made of an evaluated log-likelihood.
COSINE: Final = "cosine"
BATCH_COSINE: Final = "batch_cosine_min"
LOG_LIKELIHOOD: Final = "log_likelihood"
PERPLEXITY: Final = "perplexity"
# What every row must agree with itself by, alone and in company. Not exactly 1: sums are made in another order at
# another batch size. Dynamic quantization: .98.
BATCH_LEAST: Final = 0.9999
# Kullback-Leibler divergence from FP32's distribution, in nats. With perplexity the one score of which less is better.
KL: Final = "kl"


@dataclass(frozen=True, config=CHECKED)
class Gate:
    """A condition on one score of the quantized model; give one bound or both.

    Args:
        score: a name that `evaluate` returns. Higher is better.
        at_least: the score itself must reach this.
        may_fall: it may be lower than FP32's, but not by more than this.
    """

    score: str
    at_least: float | None = None
    may_fall: float | None = None

    def __post_init__(self) -> None:
        """Refuse a gate that is always open, or always shut."""
        if self.at_least is None and self.may_fall is None:
            raise DefinitionError(f"gate {self.score!r}: expected at_least or may_fall, got neither")
        for name, bound in (("at_least", self.at_least), ("may_fall", self.may_fall)):
            if bound is not None and not isfinite(bound):
                raise DefinitionError(f"gate {self.score!r}: {name}: expected a number, got {bound}")


def score_of(name: str, value: float | npt.ArrayLike) -> float | Outcome:
    """A score as it is reckoned with: a figure as it is, what each sample came to as FP64 [samples].

    Raises:
        DefinitionError: it is neither. Names the score.
    """
    try:
        values = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array([])
    if values.ndim > 1 or not values.size or not np.isfinite(values).all():
        got = repr(value)
        if values.ndim == 1 and values.size:
            (place, *_) = np.flatnonzero(~np.isfinite(values))
            got = f"{values[place]} for sample {place} of {values.size}"
        raise DefinitionError(f"evaluate: {name!r}: expected a number, or one for each sample; got {got:.80}")
    return values if values.ndim else float(values)


def check_names(scores: Iterable[str]) -> None:
    """Refuse names of scores that quantizing writes itself, and of those of which less is better.

    Raises:
        DefinitionError: naming the score.
    """
    written = {COSINE, BATCH_COSINE, PERPLEXITY, KL}
    if taken := sorted(set(scores) & written):
        raise DefinitionError(
            f"evaluate: expected other names than {', '.join(sorted(written))}, which `fairlane quantize` measures or "
            f"judges itself, and scores of which more is better (of a perplexity its {LOG_LIKELIHOOD}, else a negative "
            f"by another name); got {', '.join(map(repr, taken))}"
        )
