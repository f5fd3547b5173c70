"""Recordings of several rounds side by side, summed up with any weights.

One set of weights is the pooled result, one is a single round, and random ones are a bootstrap's replicate: a metric is
written once and serves all three.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.measuring.batch_statistics import BatchStatistics
from bench.measuring.process_watch import ProcessUsage
from bench.recording.histogram import Columns, Distribution
from bench.recording.recording import DONE_COUNTS, DUE_COUNTS, Recording

Weights = NDArray[np.float64]

# Throughput does not count the beginning of a phase, in which the pipeline fills, where the phase is long enough.
FILL_S: Final = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Totals:
    """One stream, summed up.

    Attributes:
        seconds: of load.
        counted_seconds: of these, what throughput counts.
        counts: see recording.DUE_COUNTS and DONE_COUNTS; the latter over the counted seconds alone.
        generator_cpu_s: CPU time of the generator.
        capacity_per_s: of Triton alone for these requests; NaN where it was not measured.
        batch_rows: mean rows of a run of the stream's model at Triton, whoever sent them; NaN where none ran.
    """

    seconds: float
    counted_seconds: float
    counts: dict[str, float]
    latency: Distribution
    refusal: Distribution
    lateness: Distribution
    generator_cpu_s: float
    capacity_per_s: float
    batch_rows: float


class StreamPool:
    """One stream of one phase over all rounds; a row is one bin of one round."""

    def __init__(self, rounds: list[Recording], capacity_per_s: float, batches: Sequence[BatchStatistics] = ()) -> None:
        self.rounds = rounds
        self.capacity_per_s = capacity_per_s
        self._batches = batches
        self.round_of_row = np.repeat(np.arange(len(rounds)), [one.bins for one in rounds])
        self._bin_s = np.concatenate([np.full(one.bins, one.duration_s / one.bins) for one in rounds])
        self._counted = np.concatenate([_counted(one) for one in rounds])
        names = (*DUE_COUNTS, *DONE_COUNTS)
        self._counts = np.stack([np.concatenate([one.counts[name] for one in rounds]) for name in names])
        self._counts[len(DUE_COUNTS) :] *= self._counted
        self._latency, self._refusal, self._lateness = (
            Columns.stack([getattr(one, name) for one in rounds]) for name in ("latency", "refusal", "lateness")
        )
        self._cpu_s = np.concatenate([np.full(one.bins, one.cpu_s / one.bins) for one in rounds])

    def totals(self, weights: Weights) -> Totals:
        """Summed up with a weight per row, shape [rows]."""
        names = (*DUE_COUNTS, *DONE_COUNTS)
        return Totals(
            seconds=float(weights @ self._bin_s),
            counted_seconds=float(weights @ (self._bin_s * self._counted)),
            counts=dict(zip(names, (self._counts @ weights).tolist(), strict=True)),
            latency=self._latency.weighted(weights),
            refusal=self._refusal.weighted(weights),
            lateness=self._lateness.weighted(weights),
            generator_cpu_s=float(weights @ self._cpu_s),
            capacity_per_s=self.capacity_per_s,
            batch_rows=self._batch_rows(weights),
        )

    def shares(self, weights: Weights) -> Weights:
        """How often each round counts, for what is measured by the round: as often as its rows do on average."""
        return np.bincount(self.round_of_row, weights, minlength=len(self.rounds)) / self.rounds[0].bins

    @property
    def batch_sizes(self) -> Counter[int]:
        """Runs of the stream's model at Triton by their rows, all rounds together."""
        return sum((each.sizes for each in self._batches), Counter())

    def _batch_rows(self, weights: Weights) -> float:
        shares = self.shares(weights).tolist()
        rows, runs = (
            sum(share * getattr(each, name) for share, each in zip(shares, self._batches, strict=False))
            for name in ("rows", "runs")
        )
        return rows / runs if runs else float("nan")

    @property
    def everything(self) -> Weights:
        """The weights of the pooled result."""
        return np.ones(len(self.round_of_row))

    @property
    def latency_by_row(self) -> Columns:
        """The latency histogram of each row."""
        return self._latency

    def count_by_bin(self, name: str) -> Weights:
        """A count per second of each bin of the phase, the mean over the rounds, shape [bins]."""
        per_s = np.stack([one.counts[name] / one.duration_s * one.bins for one in self.rounds])
        mean: Weights = per_s.mean(axis=0)
        return mean


def _counted(recording: Recording) -> NDArray[np.int64]:
    counted = np.ones(recording.bins, np.int64)
    if recording.bins > 2:
        counted[: int(np.ceil(FILL_S * recording.bins / recording.duration_s))] = 0
    return counted


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseTotals:
    """All streams of one phase on one target, and the process between client and Triton where there is one.

    Attributes:
        streams: by name.
        hop_cpu_s: CPU time of that process; NaN without one.
        hop_growth_mib: what its memory grew by over the second half of the phase, the most of all rounds.
    """

    streams: dict[str, Totals]
    hop_cpu_s: float
    hop_growth_mib: float


class PhasePool:
    """One phase on one target over all rounds."""

    def __init__(self, streams: dict[str, StreamPool], hops: list[ProcessUsage | None]) -> None:
        self.streams = streams
        self.hops = hops

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.hops)

    def pooled(self) -> PhaseTotals:
        """Every row of every round once."""
        return self._totals({name: pool.everything for name, pool in self.streams.items()})

    def one_round(self, number: int) -> PhaseTotals:
        """One round alone."""
        return self._totals(
            {name: (pool.round_of_row == number).astype(np.float64) for name, pool in self.streams.items()}
        )

    def replicate(self, rounds: NDArray[np.int64], random: np.random.Generator) -> PhaseTotals:
        """Rounds as drawn, and within each its bins drawn with replacement, the same ones for all streams."""
        bins = next(iter(self.streams.values())).rounds[0].bins
        weights = np.concatenate(
            [
                sum((random.multinomial(bins, np.full(bins, 1 / bins)) for _ in range(times)), np.zeros(bins))
                for times in np.bincount(rounds, minlength=self.rounds)
            ]
        )
        return self._totals(dict.fromkeys(self.streams, weights))

    def _totals(self, weights: dict[str, Weights]) -> PhaseTotals:
        streams = {name: pool.totals(weights[name]) for name, pool in self.streams.items()}
        return PhaseTotals(streams=streams, **self._hop(next(iter(weights.values()))))

    def _hop(self, weights: Weights) -> dict[str, float]:
        """The hop is measured by the round: a round counts as often as its rows do."""
        shares = next(iter(self.streams.values())).shares(weights)
        used = [(share, hop) for share, hop in zip(shares, self.hops, strict=True) if share > 0]
        if any(hop is None for _, hop in used):
            return {"hop_cpu_s": float("nan"), "hop_growth_mib": float("nan")}
        growths = [hop.rss_mib_at(1.0) - hop.rss_mib_at(0.5) for _, hop in used if hop]
        return {"hop_cpu_s": sum(share * hop.cpu_s for share, hop in used if hop), "hop_growth_mib": max(growths)}
