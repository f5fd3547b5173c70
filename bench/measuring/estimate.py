"""A number with its spread: the pooled value, the value of each round, and a confidence interval.

The interval is a percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13) over two
stages: rounds are drawn with replacement, and within each round its seconds. Rounds are drawn alike for everything
that was measured in them, so a ratio of two numbers of the same rounds keeps their pairing and a drift of the machine
between rounds cancels. With few rounds the interval is a little narrow; it says what this run's own spread allows, not
more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.measuring.metric import values_of
from bench.measuring.pool import PhasePool

REPLICATES: Final = 300
INTERVAL: Final = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number and its spread; `rounds` has shape [rounds], `replicates` shape [REPLICATES]."""

    value: float
    rounds: NDArray[np.float64]
    replicates: NDArray[np.float64]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval; NaNs where nothing was measured."""
        known = self.replicates[np.isfinite(self.replicates)]
        if not len(known):
            return (math.nan, math.nan)
        low, high = np.percentile(known, INTERVAL)
        return (float(low), float(high))

    @property
    def median(self) -> float:
        """Median of the rounds; NaN where a round has no value."""
        return float(np.median(self.rounds))

    def combine(self, other: "Estimate", operation: Callable[[Any, Any], Any]) -> "Estimate":
        """A ratio or difference with something measured in the same rounds, round by round and draw by draw."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return Estimate(
                float(operation(np.float64(self.value), np.float64(other.value))),
                operation(self.rounds, other.rounds),
                operation(self.replicates, other.replicates),
            )

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, "rounds": self.rounds.tolist()}


def estimate_metrics(pools: dict[str, PhasePool], *, seed: int) -> dict[str, Estimate]:
    """Every metric of every phase, by reference.

    Args:
        pools: by TARGET.PHASE, all with the same number of rounds.
        seed: of the bootstrap.
    """
    rounds = next(iter(pools.values())).rounds
    draws = np.random.default_rng(seed).integers(rounds, size=(REPLICATES, rounds))
    measured = {}
    for place, (name, pool) in enumerate(pools.items()):
        random = np.random.default_rng([seed, place])
        each_round = [values_of(pool.one_round(number)) for number in range(rounds)]
        replicates = [values_of(pool.replicate(draw, random)) for draw in draws]
        for metric, value in values_of(pool.pooled()).items():
            measured[f"{name}.{metric}"] = Estimate(
                value,
                np.array([values[metric] for values in each_round]),
                np.array([values[metric] for values in replicates]),
            )
    return measured
