"""Fidelity: every output of INT8 is compared with FP32's, slice by slice, whatever gates the definition has.

A slice is one index of an axis with few indices: a channel, a class, a place in a row of boxes and scores. What a
Concat, an ArgMax, a TopK or a NonMaxSuppression at the end of a graph reads is compared in the same way.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np

from export.definition.tensor import Array
from quantize.accuracy.output_slices import Choices, Slice, Slices

# Axes with more indices are positions, not channels: ImageNet has 1,000 classes.
FEW: Final = 1024
# Of fewer numbers there is no spread to speak of, and of fewer choices no part that went wrong.
VALUES_LEAST: Final = 8
# Of a slice's own spread. Seen of INT8 forms that are served: .09 and less; 1 is what the mean comes to.
ERROR_MOST: Final = 0.5
LOST_MOST: Final = 0.25
# What varies by less than this part of its size, or of what its liveliest neighbour varies by, is constant.
STILL: Final = 1e-4
STILL_BESIDE: Final = 1e-6
# Of positions that differ by less than this part of the spread, none is chosen: noise of each is its own there.
STANDS: Final = 0.05
# A slice has lost its values where it has fewer than a quarter of them, of at most 64.
VALUES_COUNTED: Final = 64
VALUES_LEFT: Final = 0.25
# Labels that agree by less than this beyond chance (Cohen's kappa, 1960).
KAPPA_LEAST: Final = 0.5
# Lines for one output.
TOLD: Final = 6
NUMBERS_AT_ONCE: Final = 1 << 22

# The answers of both forms to one feed, by name. Parts of an output are named by it, too.
Pair = tuple[Mapping[str, Array], Mapping[str, Array]]


class Fidelity(NamedTuple):
    """What came of it: of each output the largest error of a slice, and what is refused, by name."""

    errors: Mapping[str, float]
    refusals: tuple[str, ...]


class _Compared:
    """One output or part, over all feeds."""

    def __init__(self, name: str, ordered: bool, whole: bool, error_most: float) -> None:
        self.name, self._ordered, self._whole, self._error_most = name, ordered, whole, error_most
        self._pairs: list[tuple[Array, Array]] = []

    def add(self, fp32: Array, int8: Array) -> None:
        self._pairs.append((fp32, int8))

    def verdict(self) -> tuple[float | None, list[str]]:
        """The largest error, None where nothing has a spread; and the refusals."""
        before, after = zip(*self._pairs, strict=True)
        if sum(one.size for one in before) and not sum(one.size for one in after):
            return None, [f"{self.name}: empty, where FP32's is not"]
        kind = before[0].dtype.kind
        if kind != "f":
            return None, self._labels(before, after)
        if not self._ordered or any(one.shape != other.shape for one, other in self._pairs):
            return None, self._unordered(before, after)
        return self._numbers()

    def _numbers(self) -> tuple[float | None, list[str]]:
        pairs = [(self._rows(one), self._rows(other)) for one, other in self._pairs]
        shapes = [one.shape for one, _ in pairs]
        axes = [axis for axis in range(1, len(shapes[0])) if _is_few({shape[axis] for shape in shapes})]
        every = [Slices(None, 1), *(Slices(axis, shapes[0][axis]) for axis in axes)]
        for before, after in pairs:
            step = max(1, NUMBERS_AT_ONCE * len(before) // max(before.size, 1))
            for start in range(0, len(before), step):
                some = (np.asarray(one[start : start + step], np.float64) for one in (before, after))
                chunk = next(some), next(some)
                for slices in every:
                    slices.add(*chunk)
        worst: list[float] = []
        lines: list[tuple[bool, list[str]]] = []
        for slices in every:
            found = slices.found()
            liveliest = max(one.spread for one in found)
            varying = [one.spread > max(STILL * one.size, STILL_BESIDE * liveliest) for one in found]
            worst += [one.error for one, some in zip(found, varying, strict=True) if some and _enough(one)]
            reasons = [_reason(one, some, self._error_most) for one, some in zip(found, varying, strict=True)]
            said = list(self._told(slices.axis, len(shapes[0]), reasons, found))
            among = slices.among
            stands = among.stood > STILL * max(one.size for one in found) and among.made >= VALUES_LEAST
            if not said and stands and among.lost > LOST_MOST:
                place = self._place(slices.axis, len(shapes[0]), ":")
                said.append(f"{place}: INT8 has another index for the largest of axis {slices.axis}: {_lost(among)}")
            lines.append((None in reasons, said))
        # What names a part of the output tells more than that it is all wrong, and few lines more than many.
        told = [said for some, said in lines if said and some] or [said for _, said in lines if said] or [[]]
        return max(worst, default=None), min(told, key=len)

    def _rows(self, answer: Array) -> Array:
        """With the samples along the first axis."""
        return answer[np.newaxis] if self._whole or not answer.ndim else answer

    def _told(
        self, axis: int | None, dims: int, reasons: Sequence[str | None], found: Sequence[Slice]
    ) -> Iterator[str]:
        """One line for each run of slices that are refused for the same reason."""
        for reason, run in groupby(range(len(found)), key=lambda place: reasons[place]):
            if reason is None:
                continue
            places = list(run)
            worst = max(
                (found[place] for place in places), key=lambda one: (one.error, np.nan_to_num(one.choices.lost))
            )
            which = str(places[0]) if len(places) == 1 else f"{places[0]}:{places[-1] + 1}"
            yield f"{self._place(axis, dims, which)}: {_figures(reason, worst, self._error_most)}"

    def _place(self, axis: int | None, dims: int, which: str) -> str:
        if axis is None:
            return self.name
        places = [which if place == axis else ":" for place in range(dims)]
        return f"{self.name}[{', '.join(places[1:] if self._whole else places)}]"

    def _unordered(self, before: Sequence[Array], after: Sequence[Array]) -> list[str]:
        """What can be told of numbers that need not be at the same place: whether they still vary."""
        last = before[0].shape[-1] if before[0].ndim > 1 and _is_few({one.shape[-1] for one in before}) else 1
        said = []
        sides = [np.concatenate([one.reshape(-1, last) for one in side if one.size]) for side in (before, after)]
        for place in range(last):
            values, left = (side[:, place][np.isfinite(side[:, place])] for side in sides)
            if len(values) < VALUES_LEAST or np.std(values) <= STILL * np.abs(values).max():
                continue
            distinct = len(np.unique(values)), len(np.unique(left))
            name = self.name if last == 1 else f"{self.name}[..., {place}]"
            if len(left) != 1 and distinct[1] == 1:
                said.append(f"{name}: {CONSTANT}")
            elif len(left) >= len(values) / 2 and _is_poor(distinct):
                said.append(f"{name}: {POOR}: {distinct[1]} of {distinct[0]}")
        return said

    def _labels(self, before: Sequence[Array], after: Sequence[Array]) -> list[str]:
        values, left = (np.concatenate([one.ravel() for one in side]) for side in (before, after))
        distinct = len(set(values.tolist())), len(set(left.tolist()))
        if len(values) < VALUES_LEAST or distinct[0] < 2:
            return []
        if distinct[1] == 1:
            return [f"{self.name}: {CONSTANT}"]
        if distinct[0] >= 4 and distinct[1] * 2 < distinct[0]:
            return [f"{self.name}: {POOR}: {distinct[1]} of {distinct[0]}"]
        if self._ordered and len(values) == len(left) and len(values) >= 4 * max(distinct[0], VALUES_LEAST):
            kappa = _kappa(values, left)
            # Integers may be quantities, as of a picture: then one off by little is no other answer.
            if kappa < KAPPA_LEAST and not _is_near(values, left, self._error_most):
                return [f"{self.name}: INT8 says the same as FP32 hardly more often than by chance (kappa {kappa:.2f})"]
        return []


ENDLESS: Final = "not a number, or without an end, where FP32's is one"
CONSTANT: Final = "constant, where FP32's varies"
POOR: Final = "most distinct values are lost"
FAR: Final = "further from FP32's"
LOST: Final = "ranked otherwise"


def compare(
    pairs: Iterable[Pair],
    error_most: float = ERROR_MOST,
    unordered: Collection[str] = frozenset(),
    whole: Collection[str] = frozenset(),
) -> Fidelity:
    """Hold the answers of INT8 to those of FP32.

    Args:
        pairs: the answers of both to each feed: outputs, and their parts.
        error_most: how far a slice may be from FP32's, as a part of what it varies by.
        unordered: names of those whose rows have no fixed places, as of what was sorted.
        whole: names of those whose first axis is no batch.
    """
    every: dict[str, _Compared] = {}
    for fp32, int8 in pairs:
        for name, answer in fp32.items():
            every.setdefault(name, _Compared(name, name not in unordered, name in whole, error_most)).add(
                answer, int8[name]
            )
    errors: dict[str, float] = {}
    refusals: list[str] = []
    for one in every.values():
        worst, said = one.verdict()
        if worst is not None:
            errors[one.name] = worst
        refusals += [*said[:TOLD], *([f"{one.name}: and {len(said) - TOLD} more"] if len(said) > TOLD else [])]
    return Fidelity(errors, tuple(refusals))


def _is_few(sizes: set[int]) -> bool:
    return len(sizes) == 1 and 1 < min(sizes) <= FEW


def _enough(one: Slice) -> bool:
    return one.values >= VALUES_LEAST


def _is_poor(distinct: tuple[int, int]) -> bool:
    return distinct[1] < VALUES_LEFT * min(distinct[0], VALUES_COUNTED)


def _reason(one: Slice, varies: bool, error_most: float) -> str | None:
    """Why a slice is refused; of one that does not vary there is nothing to compare."""
    if not one.finite:
        return ENDLESS
    if not varies or not _enough(one):
        return None
    if one.spread_int8 < one.spread / 100 or one.distinct[1] == 1 < one.distinct[0]:
        return CONSTANT
    if _is_poor(one.distinct):
        return POOR
    if not one.error <= error_most:
        return FAR
    stands = one.choices.stood > STANDS * one.spread and one.choices.made >= VALUES_LEAST
    return LOST if stands and one.choices.lost > LOST_MOST else None


def _figures(reason: str, one: Slice, error_most: float) -> str:
    if reason == CONSTANT:
        return f"{reason} by {one.spread:.3g}"
    if reason == POOR:
        return f"{reason}: {one.distinct[1]} of {one.distinct[0]}"
    if reason == FAR:
        return f"{reason} than {error_most:g} of what it varies by: {one.error:.2f} of {one.spread:.3g}"
    if reason == LOST:
        return f"{reason}: {_lost(one.choices)}"
    return reason


def _lost(choices: Choices) -> str:
    return f"choosing by it loses {choices.lost:.2f} of what FP32's choice gains, expected at most {LOST_MOST:g}"


def _is_near(values: Array, left: Array, error_most: float) -> bool:
    """Whether these are numbers, and no further apart than slices of numbers may be."""
    if values.dtype.kind not in "iu":
        return False
    before, after = values.astype(np.float64), left.astype(np.float64)
    return bool(np.sqrt(np.square(after - before).mean()) <= error_most * before.std())


def _kappa(values: Array, left: Array) -> float:
    names = sorted({*values.tolist(), *left.tolist()})
    agreed = float((values == left).mean())
    chance = sum(float((values == name).mean() * (left == name).mean()) for name in names)
    return (agreed - chance) / max(1 - chance, 1e-9)
