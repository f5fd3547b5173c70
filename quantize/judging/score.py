"""Scores: what a model's samples came to, summed up, with 95 % intervals.

A score is the mean of an outcome over the samples. Perplexity is e to the mean negative log-likelihood of a token
(Jelinek et al., 1977), and so are the ends of its interval.
"""

import numpy as np

from export.definition.gate import KL, LOG_LIKELIHOOD, PERPLEXITY
from export.definition.tensor import Outcome
from export.errors import ExportError
from quantize.accuracy.confidence_interval import Interval, interval
from quantize.tasks.task import Figures, Outcomes


class ScoreError(ExportError):
    """Scores of two forms of a model cannot be compared."""


def told_apart(figures: Figures) -> tuple[dict[str, float], dict[str, Outcome]]:
    """Scores that are single figures, and the outcomes of samples among them."""
    single = {name: float(value) for name, value in figures.items() if not np.ndim(value)}
    return single, {name: np.asarray(value) for name, value in figures.items() if np.ndim(value)}


def scores(outcomes: Outcomes) -> dict[str, float]:
    """The mean of each outcome over the samples, and perplexity where there is a log-likelihood."""
    found = {name: float(values.mean(dtype=np.float64)) for name, values in outcomes.items()}
    if LOG_LIKELIHOOD in found:
        found[PERPLEXITY] = float(np.exp(-found[LOG_LIKELIHOOD]))
    return found


def intervals(outcomes: Outcomes) -> dict[str, Interval]:
    """The interval of each score that is about more than one sample."""
    found = {name: interval(values) for name, values in outcomes.items() if len(values) > 1}
    if LOG_LIKELIHOOD in found:
        low, high = found[LOG_LIKELIHOOD]
        found[PERPLEXITY] = (float(np.exp(-high)), float(np.exp(-low)))
    return found


def check_alike(name: str, before: Figures, after: Figures) -> None:
    """Refuse figures of INT8 that are not about what those of FP32 are about.

    Args:
        name: the model's.
        before: of FP32: figures, or what samples came to.
        after: of INT8.

    Raises:
        ScoreError: a score is of one alone, or of another number of samples. Names it.
    """
    shapes = [{score: np.shape(value) for score, value in figures.items()} for figures in (before, after)]
    for score in sorted(shapes[0].keys() | shapes[1].keys()):
        fp32, int8 = (_about(one.get(score)) for one in shapes)
        if fp32 != int8:
            raise ScoreError(f"{name}: {score!r}: expected the same samples of FP32 and of INT8, got {fp32} and {int8}")


def _about(shape: tuple[int, ...] | None) -> str:
    if shape is None:
        return "no such score"
    return f"{shape[0]} samples" if shape else "a figure"


def losses(before: Outcomes, after: Outcomes) -> dict[str, Interval]:
    """The interval of what was lost, sample against sample, for each outcome of more than one; below 0 is gained."""
    return {name: interval(_lost(name, values, after[name])) for name, values in before.items() if len(values) > 1}


def _lost(name: str, before: Outcome, after: Outcome) -> Outcome:
    return after - before if name == KL else before - after
