"""Slices of an output, FP32's beside INT8's: how far apart they are, against what each slice itself varies by.

One figure over an output hides what is small in it: boxes reach 640, the scores beside them 1, and a cosine of both is
1.0000 where every score is 0. So each index of an axis is a slice of its own, with

    error = rms(INT8 - FP32) / std(FP32)

over samples and positions. 0 is the same, 1 is what the mean for an answer would come to. Rank is judged by what a
choice loses: where the largest number is taken, of classes or of positions,

    loss = sum(largest - FP32 where INT8 is largest) / sum(largest - mean)

over the choices: 0 is the same, 1 is a choice by chance. Between numbers that are about equal, another one costs
nothing. Of several that INT8 has largest, the mean counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from export.definition.tensor import Array
from export.inference.cosine import LOUD, loud_of

# Of one slice, kept to count distinct values; over all slices of an axis.
KEPT: Final = 4096
KEPT_IN_ALL: Final = 1 << 20
# Numbers that mask differ by no more than this part of their size, by what they were added to.
ALIKE: Final = 0.01
TINY: Final = np.finfo(np.float64).tiny


class Choices(NamedTuple):
    """How many, how far FP32's largest stands above the mean, and the loss as above; NaN where nothing stands out."""

    made: int
    stood: float
    lost: float


class Slice(NamedTuple):
    """One index of an axis.

    `values` is how many numbers were compared; `spread` and `size` are the standard deviation and the largest |x| of
    FP32's, `spread_int8` that of INT8's; `error` as above; `distinct` counts values of FP32 and of INT8, of those that
    were kept; `choices` are those of the largest of this slice's positions, one a sample.
    """

    values: int
    spread: float
    size: float
    spread_int8: float
    error: float
    distinct: tuple[int, int]
    choices: Choices
    finite: bool


@dataclass
class Sums:
    """Sums over feeds for each index of an axis, [indices]."""

    count: Any = 0.0
    total: Any = 0.0
    squares: Any = 0.0
    total_int8: Any = 0.0
    squares_int8: Any = 0.0
    errors: Any = 0.0
    stood: Any = 0.0
    lost: Any = 0.0
    choices: int = 0
    size: Any = 0.0
    worst_loud: Any = 0.0
    endless: Any = False
    least: float = 0.0
    largest: float = 0.0
    kept: list[tuple[Array, Array]] = field(default_factory=list)


class Slices:
    """All slices along one axis; axis None: the whole, as one slice.

    Args:
        axis: which.
        indices: how many it has.
    """

    def __init__(self, axis: int | None, indices: int) -> None:
        self.axis, self.indices = axis, indices
        self._sums = Sums()
        # Of choices among the indices, one at each position.
        self._stood = self._lost = 0.0
        self._choices_among = 0
        self._room = min(KEPT, max(KEPT_IN_ALL // indices, 64))

    def add(self, fp32: Array, int8: Array) -> None:
        """Take in the answers to one feed, FP64, both of one shape; the first axis is that of the samples."""
        before, after = self._flat(fp32), self._flat(int8)
        quiet = _quiet(before)
        sums, both = self._sums, (np.where(quiet, before, 0), np.where(quiet, after, 0))
        sums.endless |= (~np.isfinite(after) & (after != before)).any(axis=1)
        both = both[0], np.where(np.isfinite(both[1]), both[1], 0)
        sums.least = min(sums.least, float(both[0].min(initial=0)))
        sums.largest = max(sums.largest, float(both[0].max(initial=0)))
        sums.count += quiet.sum(axis=1)
        sums.total += both[0].sum(axis=1)
        sums.squares += np.square(both[0]).sum(axis=1)
        sums.total_int8 += both[1].sum(axis=1)
        sums.squares_int8 += np.square(both[1]).sum(axis=1)
        sums.errors += np.square(both[1] - both[0]).sum(axis=1)
        sums.size = np.maximum(sums.size, np.abs(both[0]).max(axis=1, initial=0))
        sums.worst_loud = np.maximum(sums.worst_loud, _loud_error(before, after, quiet))
        step = max(1, before.shape[1] // 512)
        if sum(len(one[0][0]) for one in sums.kept) < self._room:
            sums.kept.append((before[:, ::step].astype(np.float32), after[:, ::step].astype(np.float32)))
        self._choices(fp32, int8)

    def _flat(self, values: Array) -> Array:
        """[indices, everything else]."""
        if self.axis is None:
            return values.reshape(1, -1)
        return np.moveaxis(values, self.axis, 0).reshape(self.indices, -1)

    def _choices(self, fp32: Array, int8: Array) -> None:
        # Among the positions of each index, a choice a sample.
        if self.axis is None:
            before, after = (one.reshape(len(one), 1, -1) for one in (fp32, int8))
        else:
            before, after = (np.moveaxis(one, self.axis, 1).reshape(len(one), self.indices, -1) for one in (fp32, int8))
            # Among the indices, a choice at each position.
            stood, lost = _lost(np.moveaxis(before, 1, -1), np.moveaxis(after, 1, -1))
            self._choices_among += stood.size
            self._stood += float(stood.sum())
            self._lost += float(lost.sum())
        if before.shape[-1] > 1:
            stood, lost = _lost(before, after)
            self._sums.choices += len(stood)
            self._sums.stood = self._sums.stood + stood.sum(axis=0)
            self._sums.lost = self._sums.lost + lost.sum(axis=0)

    @property
    def among(self) -> Choices:
        """Of the indices, at each position."""
        if not self._stood > 0:
            return Choices(self._choices_among, 0.0, np.nan)
        return Choices(self._choices_among, self._stood / self._choices_among, self._lost / self._stood)

    @property
    def reach(self) -> float:
        """From the least of FP32's numbers to the largest, 0 among them."""
        return self._sums.largest - self._sums.least

    def found(self) -> Sequence[Slice]:
        """What came of each index."""
        sums = self._sums
        count = np.maximum(sums.count, 1)
        spread = _deviation(count, sums.total, sums.squares)
        spread_int8 = _deviation(count, sums.total_int8, sums.squares_int8)
        with np.errstate(over="ignore"):
            # Of what has no spread, without an end.
            error = np.maximum(np.sqrt(sums.errors / count) / np.maximum(spread, TINY), sums.worst_loud)
        stood = np.broadcast_to(np.asarray(sums.stood, np.float64), spread.shape)
        lost = np.broadcast_to(np.asarray(sums.lost, np.float64), spread.shape)
        losses = np.where(stood > 0, lost / np.where(stood > 0, stood, 1), np.nan)
        kept = [np.concatenate(side, axis=1) for side in zip(*sums.kept, strict=True)]
        return [
            Slice(
                values=int(count[place]),
                spread=float(spread[place]),
                size=float(sums.size[place]),
                spread_int8=float(spread_int8[place]),
                error=float(error[place]),
                distinct=(len(np.unique(kept[0][place])), len(np.unique(kept[1][place]))),
                choices=Choices(sums.choices, float(stood[place]) / max(sums.choices, 1), float(losses[place])),
                finite=not bool(sums.endless[place]),
            )
            for place in range(self.indices)
        ]


def _deviation(count: Array, total: Array, squares: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(squares / count - np.square(total / count), 0)))


def _quiet(rows: Array) -> Array:
    """Which numbers hide no others of their slice: finite, and not what masks, as -1e9 does, all about the same."""
    quiet = np.isfinite(rows)
    for place in np.flatnonzero(np.abs(np.where(quiet, rows, 0)).max(axis=1, initial=0) > LOUD):
        loud = loud_of(np.where(quiet[place], rows[place], 0))
        masks = rows[place][loud]
        if masks.size and np.ptp(masks) < ALIKE * np.abs(masks).max():
            quiet[place] &= ~loud
    return quiet


def _loud_error(before: Array, after: Array, quiet: Array) -> Array:
    """Of numbers that hide others, the largest relative error of each slice."""
    loud = ~quiet & np.isfinite(before) & np.isfinite(after)
    if not loud.any():
        return np.zeros(len(before))
    off = np.where(loud, np.abs(after - before) / np.maximum(np.abs(before), TINY), 0)
    return np.asarray(off.max(axis=1))


def _lost(fp32: Array, int8: Array) -> tuple[Array, Array]:
    """Of choices along the last axis: how far the largest stands above the mean, and above what INT8 has largest."""
    known = np.isfinite(fp32) & np.isfinite(int8)
    values = np.where(known, fp32, 0)
    largest = np.where(known, fp32, -np.inf).max(axis=-1)
    mean = values.sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    mine = np.where(known, int8, -np.inf)
    chosen = known & (mine == mine.max(axis=-1, keepdims=True))
    got = (values * chosen).sum(axis=-1) / np.maximum(chosen.sum(axis=-1), 1)
    some = np.isfinite(largest)
    return np.where(some, largest - mean, 0), np.where(some, largest - got, 0)
