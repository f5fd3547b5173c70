"""HDR histograms of durations, and their columns for numpy.

Gil Tene's High Dynamic Range histogram (hdrhistogram): fixed memory, constant time per value, values kept to three
significant digits from 1 us to 10 minutes, so at most 0.1 % off.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

LOWEST_US: Final = 1
HIGHEST_US: Final = 600_000_000
DIGITS: Final = 3


def new_histogram() -> HdrHistogram:
    """An empty histogram; 170 kB."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


def record_s(histogram: HdrHistogram, value_s: float) -> None:
    """Add one duration; what is outside the range counts as its end."""
    histogram.record_value(min(HIGHEST_US, max(LOWEST_US, round(value_s * 1e6))))


def counts_of(encoded: str) -> NDArray[np.int64]:
    """The counts of an encoded histogram, one per HDR cell; zeros for an empty string."""
    if not encoded:
        return np.zeros(len(cell_ms()), np.int64)
    return np.array(HdrHistogram.decode(encoded).counts, np.int64)


@cache
def cell_ms() -> NDArray[np.float64]:
    """What each HDR cell stands for: the highest value that falls into it, in milliseconds."""
    histogram = new_histogram()
    lowest_us = [histogram.get_value_from_index(index) for index in range(histogram.counts_len)]
    return np.array([histogram.get_highest_equivalent_value(value) for value in lowest_us]) / 1e3


@dataclass(frozen=True, eq=False)
class Columns:
    """Histograms side by side: `counts` has shape [histograms, values], `values_ms` shape [values], ascending."""

    values_ms: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def decode(cls, encoded: list[str]) -> "Columns":
        """From encoded histograms; cells that are empty in all of them are left out."""
        counts = np.stack([counts_of(one) for one in encoded])
        used = counts.any(axis=0)
        return cls(cell_ms()[used], counts[:, used])

    @classmethod
    def stack(cls, parts: "list[Columns]") -> "Columns":
        """All histograms of all parts, in order."""
        values_ms = np.unique(np.concatenate([part.values_ms for part in parts]))
        counts = np.zeros((sum(len(part.counts) for part in parts), len(values_ms)), np.int64)
        row = 0
        for part in parts:
            counts[row : row + len(part.counts), np.searchsorted(values_ms, part.values_ms)] = part.counts
            row += len(part.counts)
        return cls(values_ms, counts)

    def weighted(self, weights: NDArray[np.float64]) -> "Distribution":
        """The sum of all histograms, each as often as its weight says."""
        return Distribution(self.values_ms, weights @ self.counts)


@dataclass(frozen=True, eq=False)
class Distribution:
    """One distribution: `counts` of each of `values_ms`, both of shape [values]."""

    values_ms: NDArray[np.float64]
    counts: NDArray[np.float64]

    def percentile_ms(self, percent: float) -> float:
        """The smallest value with at least `percent` of all at or below it; NaN of nothing."""
        below = np.cumsum(self.counts)
        if not len(below) or below[-1] <= 0:
            return float("nan")
        # A hair less, so that a sum of weights that should be equal to the target is not above it.
        return float(self.values_ms[np.searchsorted(below, percent / 100 * below[-1] * (1 - 1e-12))])
