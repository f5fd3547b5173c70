"""What the rounds of `fairlane bench backend` come to: rows, wall time and CPU time of each side, and their ratios."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Shape(NamedTuple):
    """What a batch is: rows, and the size of its axes that vary."""

    rows: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side did. Sides add up.

    Attributes:
        rows: that were inferred.
        wall_s: it took.
        cpu_s: that its processes took.
    """

    rows: int
    wall_s: float
    cpu_s: float

    def __add__(self, other: "Side") -> "Side":
        return Side(rows=self.rows + other.rows, wall_s=self.wall_s + other.wall_s, cpu_s=self.cpu_s + other.cpu_s)

    @property
    def rows_per_s(self) -> float:
        """Of wall time."""
        return self.rows / self.wall_s

    @property
    def cpu_us_per_row(self) -> float:
        """CPU time."""
        return self.cpu_s * 1e6 / self.rows


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement of every side."""

    bare: Side
    identity: Side
    triton: Side

    @property
    def ratio(self) -> float:
        """Triton's rows per second to the bare loop's."""
        return self.triton.rows_per_s / self.bare.rows_per_s

    @property
    def backend_ratio(self) -> float:
        """Wall time of loop and identity model to that of the model in Triton."""
        return self.triton.rows_per_s * (1 / self.bare.rows_per_s + 1 / self.identity.rows_per_s)

    @property
    def backend_cpu_ratio(self) -> float:
        """CPU time of loop and identity model to that of the model in Triton; NaN where none was counted."""
        ours = self.triton.cpu_us_per_row
        return (self.bare.cpu_us_per_row + self.identity.cpu_us_per_row) / ours if ours else math.nan


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The sides at one shape, medians over the rounds.

    Attributes:
        rows: of a batch.
        length: of its axes that vary.
        bare, identity, triton: rows per second of wall time.
        ratio: median of the rounds' ratios of rows per second, Triton to the bare loop.
        ratio_low, ratio_high: the smallest and the largest of them.
        backend_ratio: median of the rounds' ratios of a batch's time, loop and identity model one after the other to
            the model in Triton. Beyond 1 where Triton works on the next batch meanwhile.
        backend_cpu_ratio: the same of CPU time, where nothing is hidden by what runs side by side.
        bare_cpu_us, identity_cpu_us, triton_cpu_us: CPU time a row.
        others_cores: cores that processes of others kept busy meanwhile. Beyond OTHERS_CORES_BOUND the
            two sides do not get the same share of the machine, and wall times mean nothing.
    """

    rows: int
    length: int
    bare: float
    identity: float
    triton: float
    ratio: float
    ratio_low: float
    ratio_high: float
    backend_ratio: float
    backend_cpu_ratio: float
    bare_cpu_us: float
    identity_cpu_us: float
    triton_cpu_us: float
    others_cores: float

    @classmethod
    def of(cls, shape: Shape, rounds: Sequence[Round], others_cores: float) -> "Comparison":
        """Summed up from rounds."""

        def median(number: Callable[[Round], float]) -> float:
            return statistics.median(map(number, rounds))

        ratios = [one.ratio for one in rounds]
        return cls(
            rows=shape.rows,
            length=shape.length,
            bare=median(lambda one: one.bare.rows_per_s),
            identity=median(lambda one: one.identity.rows_per_s),
            triton=median(lambda one: one.triton.rows_per_s),
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            backend_ratio=median(lambda one: one.backend_ratio),
            backend_cpu_ratio=median(lambda one: one.backend_cpu_ratio),
            bare_cpu_us=median(lambda one: one.bare.cpu_us_per_row),
            identity_cpu_us=median(lambda one: one.identity.cpu_us_per_row),
            triton_cpu_us=median(lambda one: one.triton.cpu_us_per_row),
            others_cores=others_cores,
        )
