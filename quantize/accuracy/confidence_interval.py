"""Confidence intervals of scores: how far a mean over this number of samples may be off by chance."""

from typing import Final

import numpy as np

from export.definition.tensor import Outcome

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
SEED: Final = 7
# How many samples are drawn at a time, in 16 bytes each.
DRAWN: Final = 1 << 20

Interval = tuple[float, float]


def interval(values: Outcome) -> Interval:
    """The 95 % interval of the mean of [n], by the percentile bootstrap (Efron, 1979).

    For the difference of two models pass the differences by sample: what is hard for both then cancels.
    """
    random, exact = np.random.default_rng(SEED), values.astype(np.float64)
    at_once = max(1, DRAWN // len(values))
    sizes = [min(at_once, RESAMPLES - done) for done in range(0, RESAMPLES, at_once)]
    means = np.concatenate([exact[random.integers(0, len(exact), (size, len(exact)))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
