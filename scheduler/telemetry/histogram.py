"""Counts of durations in fixed buckets, one list access an observation: for Prometheus, and for rolling percentiles.

prometheus_client's own histogram locks and looks up labels at every observation, and cannot give a percentile of
the last minute. Here one list of counts serves both: Prometheus gets every second bound, and the difference
of two copies is what happened in between.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

# Renard's R10 series: ten bounds a decade, a factor of 1.26 from one to the next, 0.1 ms to 63 s.
_R10: Final = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
SECONDS: Final = tuple(
    round(step * 10.0**decade, 7) for decade in range(-4, 2) for step in _R10 if step * 10.0**decade < 70
)
# Powers of two: batch sizes.
ROWS: Final = tuple(float(2**power) for power in range(13))
# Actual through estimated: 1 is right.
RATIOS: Final = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


class Histogram:
    """Observations in buckets.

    Attributes:
        bounds: upper bounds, ascending; one more bucket holds what is larger.
        counts: observations in each bucket, not cumulated.
        total: sum of the observations.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        """Take in the observations of another one with the same bounds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    @property
    def count(self) -> int:
        """Observations in all."""
        return sum(self.counts)

    def cumulative(self, every: int = 1) -> list[tuple[str, int]]:
        """(upper bound, observations up to it) as Prometheus wants them, of every so manieth bound and infinity."""
        sums = list(accumulate(self.counts))
        pairs = [
            (format(self.bounds[place], "g"), sums[place])
            for place in range(len(self.bounds) - 1, -1, -every)  # from the last, so that it is among them
        ]
        return [*reversed(pairs), ("+Inf", sums[-1])]


def percentile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """The value below which `part` (0 to 1) of the observations lie, interpolated within its bucket.

    None where there are no observations; the last bound where it lies beyond that.
    """
    total = sum(counts)
    if not total:
        return None
    target = part * total
    below = 0
    for place, count in enumerate(counts):
        if count and below + count >= target:
            if place == len(bounds):
                return bounds[-1]
            floor = bounds[place - 1] if place else 0.0
            return floor + (bounds[place] - floor) * (target - below) / count
        below += count
    return bounds[-1]
