"""Independence of rows: whether each row of a batch gets the answer that it gets alone, whoever is beside it.

A server that merges requests needs it. That a first axis varies does not say so: it may count the points of a cloud, or
the steps of a sequence. So it is tried, and the trials are made so that a difference means something:

- The others' values. A batch is run twice, with other rows in the place of some; those that stayed are computed at the
  same place of a batch of the same size, where the arithmetic is the same to the last bit. Hardly any difference is
  forgiven.
- Their number and order. A row is run alone, in half of the batch, and in another order. There sums are made in another
  order, too, and what rounding may do is forgiven.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from export.definition.tensor import Array, Feed
from export.inference.session import RunError

Predict = Callable[[Feed], Mapping[str, Array]]

# Beyond what has to be tried, trials go on for so long, and end with a trial.
SECONDS: Final = 10.0
# Sizes of batches, beside the largest and the one below: where kernels change their way, then all of up to 32 rows.
SIZES: Final = (3, 2, 16, 7, 8, 4, 17, 5, 9, 31, 13, 24, 32, 48, 64, 100, 128, *range(2, 33))
# Rows that are run alone, of each batch.
ALONE: Final = 4


@dataclass(frozen=True)
class Kind:
    """Rows of one kind: of the same shapes, with values of one range.

    Args:
        name: what to call it.
        draw: makes n rows, each with values of its own.
        others: each makes, for a batch of rows, as many for the places beside those that stay, of any values.
        tame: whether rounding stays small with these values, so that a row alone can be compared.
    """

    name: str
    draw: Callable[[int, np.random.Generator], Feed]
    others: Sequence[Callable[[Feed, np.random.Generator], Feed]]
    tame: bool = True


@dataclass(frozen=True)
class Finding:
    """What came of the trials.

    Args:
        mixed: what of a row's answer changed with the others, in words with figures; empty where nothing did.
        unproved: why the trials say nothing; empty where they do.
        sizes: of the batches that were tried, rows.
    """

    mixed: str = ""
    unproved: str = ""
    sizes: tuple[int, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether rows are independent, as far as was tried."""
        return not self.mixed and not self.unproved


class Rounding(NamedTuple):
    """What is forgiven between two numbers: parts of the number itself and of what is usual in its output, or so much.

    Usual is what a quarter of the numbers stays below, and no mean, which what is masked (-1e9) would take over.
    """

    own: float
    usual: float
    absolute: float = 0.0


# Where other rows changed. Not 0: a model may sort rows by kind, and multiply each kind in a matrix of its own size.
VALUES: Final = Rounding(1e-4, 1e-5)


class _MixedError(Exception):
    """A row's answer changed."""


class _SilentError(Exception):
    """A trial that must run does not."""


def examine(
    predict: Predict, kinds: Sequence[Kind], most: int, rounding: Rounding, *, every_input: bool = True
) -> Finding:
    """Try rows alone, among others, and in another order, in batches of 2 to `most` rows.

    Args:
        predict: the model.
        kinds: of rows; the first is tried with the largest batch in any case.
        most: rows of the largest batch.
        rounding: what is forgiven between batches of different sizes.
        every_input: whether an input that is the same in all rows makes the trials worthless.
    """
    trials = _Trials(predict, rounding)
    started, sizes = time.monotonic(), list[int]()
    try:
        for number, (kind, size) in enumerate(_plan(kinds, most)):
            if number >= 2 and time.monotonic() - started > SECONDS:
                break
            sizes += [size] if size not in sizes else []
            trials.try_batch(kind, size)
    except _MixedError as mixed:
        return Finding(mixed=str(mixed), sizes=tuple(sorted(sizes)))
    except _SilentError as silent:
        return Finding(unproved=str(silent), sizes=tuple(sorted(sizes)))
    return Finding(unproved=trials.silence(every_input=every_input), sizes=tuple(sorted(sizes)))


def _plan(kinds: Sequence[Kind], most: int) -> Iterator[tuple[Kind, int]]:
    """Trials, those first that say most: a few rows and the largest batch, then every kind, then every size."""
    sizes = [size for size in dict.fromkeys((SIZES[0], most, *SIZES, most - 1)) if 1 < size <= most]
    first, *others = kinds
    yield from ((first, size) for size in sizes[:2])
    for place, size in enumerate(sizes):
        yield from ((kind, size) for kind in (others if place < 2 else kinds))


class _Trials:
    def __init__(self, predict: Predict, rounding: Rounding) -> None:
        self._predict, self._rounding = predict, rounding
        self._chance = np.random.default_rng(0)
        self._seen: dict[str, _Seen] = {}
        self._same: dict[str, bool] = {}
        self._repeated = False

    def try_batch(self, kind: Kind, size: int) -> None:
        batch = kind.draw(size, self._chance)
        try:
            base = self._predict(batch)
        except RunError as error:
            if kind.tame:
                raise _SilentError(f"it does not run with {size} rows of {kind.name}: {error}") from error
            return
        self._expect_rows(base, size)
        self._note(batch, base)
        if not self._repeated:
            self._repeated = True
            if any(difference(value, self._predict(batch)[name], VALUES) for name, value in base.items()):
                raise _SilentError("its answers to the same input differ from run to run")
        self._try_values(kind, batch, base, size)
        if kind.tame:
            self._try_order(kind, batch, base, size)

    def _try_values(self, kind: Kind, batch: Feed, base: Mapping[str, Array], size: int) -> None:
        """Other rows in the place of some."""
        makers = (lambda _, chance: kind.draw(size, chance), *kind.others)
        for others in (make(batch, self._chance) for make in makers):
            stays = self._chance.permutation(size) < max(1, size // 2)
            try:
                got = self._predict({name: _merged(stays, batch[name], others[name]) for name in batch})
            except RunError:
                # Of other values than the kind's own, the model need not take any.
                continue
            self._expect_rows(got, size)
            self._note(others, got)
            rows = np.flatnonzero(stays)
            what = f"among {size} rows a row's answer changes with the values of the others"
            self._compare(base, rows, got, rows, VALUES, what)

    def _try_order(self, kind: Kind, batch: Feed, base: Mapping[str, Array], size: int) -> None:
        """Another order, half of the rows, and single ones."""
        order = np.roll(np.arange(size), self._chance.integers(1, size))
        half = np.arange(size // 2)
        alone = np.unique([0, size - 1, *self._chance.integers(0, size, ALONE - 2)])
        trials = [(order, f"of {size} rows a row's answer changes with its place")]
        trials += [(half, f"a row's answer changes with the number of rows, {len(half)} or {size}")] if size > 3 else []
        trials += [(np.array([row]), f"a row's answer alone is another than among {size} rows") for row in alone]
        for rows, what in trials:
            try:
                got = self._predict({name: value[rows] for name, value in batch.items()})
            except RunError as error:
                raise _SilentError(f"it does not run with {len(rows)} rows of {kind.name}: {error}") from error
            self._expect_rows(got, len(rows))
            self._compare(base, rows, got, np.arange(len(rows)), self._rounding, what)

    def _expect_rows(self, answer: Mapping[str, Array], size: int) -> None:
        for name, value in answer.items():
            if value.ndim == 0 or len(value) != size:
                got = "one number" if value.ndim == 0 else f"{len(value)} rows"
                raise _MixedError(f"output {name!r}: expected as many rows as the inputs, {size}; got {got}")

    @staticmethod
    def _compare(
        base: Mapping[str, Array],
        rows: Array,
        got: Mapping[str, Array],
        places: Array,
        rounding: Rounding,
        what: str,
    ) -> None:
        for name, value in base.items():
            if found := difference(value[rows], got[name][places], rounding):
                raise _MixedError(f"output {name!r}: {what}, {found}")

    def _note(self, feed: Feed, answer: Mapping[str, Array]) -> None:
        for name, value in feed.items():
            self._same[name] = self._same.get(name, True) and bool(value.size and np.all(value == value[:1]))
        for name, value in answer.items():
            self._seen.setdefault(name, _Seen()).note(value)

    def silence(self, *, every_input: bool) -> str:
        """Why the trials say nothing; empty where they do."""
        void = [name for name, seen in self._seen.items() if not seen.finite]
        if void:
            return f"output {void[0]!r} has no number (NaN or infinity alone) for any values that were tried"
        if not any(seen.varies for seen in self._seen.values()):
            return "its answers are all alike, whatever the input"
        same = [name for name, one in self._same.items() if one]
        if same and every_input:
            return f"input {same[0]!r} was the same in every row, as the model takes no other values that were tried"
        return ""


@dataclass
class _Seen:
    """What an output's answers were like."""

    finite: bool = False
    varies: bool = False
    first: list[Array] = field(default_factory=list)

    def note(self, value: Array) -> None:
        if self.finite and self.varies:
            return
        if value.dtype.kind not in "fc":
            self.finite = True
            rows = value
        else:
            self.finite |= bool(np.isfinite(value).any()) or not value.size
            rows = np.where(np.isfinite(value), value, 0)
        self.first = self.first or [rows[:1]]
        alike = rows.shape[1:] == self.first[0].shape[1:] and bool(np.all(rows == self.first[0]))
        self.varies |= not alike


def _merged(stays: Array, batch: Array, others: Array) -> Array:
    return np.where(stays.reshape(-1, *[1] * (batch.ndim - 1)), batch, others).astype(batch.dtype)


def difference(one: Array, other: Array, rounding: Rounding) -> str:
    """Where two answers differ by more than rounding, by how much, in words; empty where they do not."""
    if one.shape != other.shape:
        return f"in shape: {list(one.shape[1:])} or {list(other.shape[1:])}"
    if one.dtype.kind != "f":
        count = int(np.sum(one != other))
        return f"in {count} of {one.size} values" if count else ""
    first, second = one.astype(np.float64), other.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    if same.all():
        return ""
    sizes = np.abs(first[np.isfinite(first) & (first != 0)])
    # Not the mean: numbers that stand for what is masked would hide all others.
    usual = float(np.quantile(sizes, 0.25)) if sizes.size else 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(first - second)
        own = np.where(np.isfinite(first), np.abs(first), 0)
        forgiven = rounding.own * own + rounding.usual * usual + rounding.absolute
        # Written so that a NaN, which compares false with everything, counts.
        beyond = ~same & ~(apart <= forgiven)
    if not beyond.any():
        return ""
    worst = float(np.max(np.where(np.isnan(apart[beyond]), np.inf, apart[beyond])))
    return f"by {worst:.3g} where the answers reach {float(sizes.max()) if sizes.size else 0.0:.3g}"
