"""Confidence intervals of scores: how far a mean over so many samples could be off by chance."""

from typing import Final

import numpy as np

from export.tensor import Outcome

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
SEED: Final = 7

Interval = tuple[float, float]


def interval(values: Outcome) -> Interval:
    """The 95 % interval of the mean of [n], by the percentile bootstrap (Efron, 1979).

    For the difference of two models pass the differences by sample: what is hard for both then cancels.
    """
    drawn = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    means = values.astype(np.float64)[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
