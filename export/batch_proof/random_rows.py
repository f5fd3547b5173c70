"""Rows of random values, for a graph that comes without samples.

The graph does not say which sizes and integers it takes. Example: a word table ends at 30,522, a mask is 0 or 1.
So sizes and ranges are found by trying.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from export.batch_proof.independence import SECONDS, Kind, Predict
from export.definition.tensor import NUMPY_TYPES, Array, Feed, Tensor
from export.inference.session import RunError

Draw = Callable[[np.random.Generator, Sequence[int]], Array]

# Of the axes behind the first that vary, all alike; the first two that the model takes.
SIZES: Final = (16, 5, 2, 32, 8, 64, 224, 1, 128, 512)
# Integers from and below: those that masks, flags and labels take; lengths; then one value alone.
RANGES: Final = ((0, 2), (1, 3), (1, 2), (0, 1))
# Token ids and keys: as far as the model takes them. What counts steps or rows would take minutes beyond.
WIDER: Final = (10, 100, 1000, 10_000)
WORDS: Final = (("a", "the", "Zug", "größer", "blue sky", "x1", ""), ("0", "1", "2.5", "-3"), ("",))
# Types that have a value for what is no number.
NUMBERS: Final = ("FP16", "FP32", "FP64")
# Of one input, in the first attempts.
NUMBERS_MOST: Final = 1 << 24
# Rows, of the first attempts.
ROWS: Final = 3
# Numbers by name. The first that a model takes is what sizes and integers are looked for with.
FLOATS: Final[Mapping[str, Draw]] = {
    "normal numbers": lambda chance, shape: chance.normal(0, 1, shape),
    "numbers from 0 to 1": lambda chance, shape: chance.uniform(0, 1, shape),
    "numbers around 5": lambda chance, shape: chance.normal(5, 1, shape),
    "numbers around -5": lambda chance, shape: chance.normal(-5, 1, shape),
    "numbers from -1 to 0": lambda chance, shape: chance.uniform(-1, 0, shape),
    "numbers of some hundreds": lambda chance, shape: chance.normal(0, 300, shape),
    "numbers from 0 to 255": lambda chance, shape: chance.uniform(0, 255, shape),
    "numbers around 0.001": lambda chance, shape: chance.normal(0, 0.001, shape),
}
# Values with which rounding stays small in most models.
TAME: Final = tuple(FLOATS)[:2]
LOUD: Final = 100


class NoRowsError(Exception):
    """A model runs on no random values; says what ONNX Runtime said of the first."""


class _Values(NamedTuple):
    """What a feed is made with: the size of axes that vary, numbers, integers by input, and words."""

    size: int
    floats: str
    integers: Mapping[str, tuple[int, int]]
    words: Sequence[str]


class RandomRows:
    """Random rows for inputs whose first axis counts them.

    Args:
        inputs: rows are along the first axis of those in which it varies.
        predict: the model.
        words: that the model knows; may be none.
    """

    def __init__(self, inputs: Sequence[Tensor], predict: Predict, words: Sequence[str] = ()) -> None:
        self._inputs, self._predict = inputs, predict
        self._words = (words, *WORDS) if words else WORDS

    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of rows on which the model runs.

        Raises:
            NoRowsError: there are none.
        """
        first = self._first()
        kinds = [first._replace(floats=name) for name in FLOATS]
        others = [first._replace(size=size) for size in self._sizes() if size != first.size]
        # Another size behind the normal numbers, as it changes most.
        kinds[1:1] = [one for one in others if self._refusal(one) is None][:1]
        made = [self._kind(one) for one in kinds if one is first or self._refusal(one) is None]
        wide = self._wider(first)
        if wide != first:
            made.insert(1, self._kind(wide, "integers of a wide range", tame=False))
        if all(tensor.datatype not in NUMBERS for tensor in self._inputs):
            # Numbers are all that the others differ in.
            return tuple(kind for kind in made if kind.name in (made[0].name, "integers of a wide range"))
        return tuple(made)

    def runs_apart(self, groups: Sequence[Sequence[str]]) -> str | None:
        """With which different numbers of rows groups of inputs run, in words; None where they do not."""
        values, chance = self._first(), np.random.default_rng(0)
        for place in range(1, len(groups)):
            rows = {name: ROWS + 2 * (number >= place) for number, group in enumerate(groups) for name in group}
            feed = {tensor.name: self._array(tensor, values, rows[tensor.name], chance) for tensor in self._inputs}
            try:
                self._predict(feed)
            except RunError:
                continue
            return f"{ROWS} rows of {groups[0][0]!r} and {ROWS + 2} of {groups[place][0]!r}"
        return None

    def _sizes(self) -> Sequence[int]:
        """Sizes of what varies behind the first axis, with which no input is too large."""
        inner = [tensor.dims[1:] for tensor in self._inputs]
        if not any(isinstance(size, str) for dims in inner for size in dims):
            return (1,)
        fitting = (size for size in SIZES if max(map(_count(size), inner)) * ROWS <= NUMBERS_MOST)
        return tuple(fitting) or (1,)

    def _first(self) -> _Values:
        """The first values that the model takes."""
        first: RunError | None = None
        started = time.monotonic()
        for values in self._attempts():
            error = self._refusal(values)
            if error is None:
                return values
            # What is said of the most usual values tells most.
            first = first or error
            if time.monotonic() - started > SECONDS:
                break
        raise NoRowsError(str(first))

    def _attempts(self) -> Iterator[_Values]:
        integers = [tensor.name for tensor in self._inputs if np.dtype(NUMPY_TYPES[tensor.datatype]).kind in "iu"]
        words = self._words if any(tensor.datatype == "STRING" for tensor in self._inputs) else WORDS[:1]
        for within in RANGES if integers else RANGES[:1]:
            for some in words:
                for floats in TAME:
                    for size in self._sizes():
                        yield _Values(size, floats, dict.fromkeys(integers, within), some)

    def _wider(self, values: _Values) -> _Values:
        """The same with each integer input as far as the model takes it, and gives answers of the same shape."""
        before = self._shapes(values)
        for name, (low, _) in values.integers.items():
            for high in WIDER:
                wider = values._replace(integers={**values.integers, name: (low, high)})
                if self._refusal(wider) is not None or self._shapes(wider) != before:
                    break
                values = wider
        return values

    def _shapes(self, values: _Values) -> Mapping[str, tuple[int, ...]]:
        return {name: np.shape(value) for name, value in self._try(values).items()}

    def _refusal(self, values: _Values) -> RunError | None:
        try:
            self._try(values)
        except RunError as error:
            return error
        return None

    def _try(self, values: _Values) -> Mapping[str, Array]:
        return self._predict(self._feed(values, ROWS, np.random.default_rng(0)))

    def _feed(self, values: _Values, rows: int, chance: np.random.Generator) -> Feed:
        return {tensor.name: self._array(tensor, values, rows, chance) for tensor in self._inputs}

    @staticmethod
    def _array(tensor: Tensor, values: _Values, rows: int, chance: np.random.Generator) -> Array:
        first = [rows if isinstance(size, str) else size for size in tensor.dims[:1]]
        shape = (*first, *(values.size if isinstance(size, str) else size for size in tensor.dims[1:]))
        dtype = np.dtype(NUMPY_TYPES[tensor.datatype])
        if dtype.kind == "O":
            return np.array(values.words, np.object_)[chance.integers(0, len(values.words), shape)]
        if dtype.kind == "b":
            return chance.integers(0, 2, shape).astype(np.bool_)
        if dtype.kind in "iu":
            low, high = values.integers[tensor.name]
            # Small ones among large ones: the first entries of a table may be special.
            ends = [end for end in WIDER if end < high] + [high] if high > WIDER[0] else [high]
            tops = np.minimum(chance.choice(ends, shape), np.iinfo(dtype).max)
            return chance.integers(low, tops, shape).astype(dtype)
        return FLOATS[values.floats](chance, shape).astype(dtype)

    def _kind(self, values: _Values, name: str = "", *, tame: bool | None = None) -> Kind:
        def others(batch: Feed, chance: np.random.Generator) -> Feed:
            rows = len(next(iter(batch.values())))
            # Of each row, in all inputs: a copy of the first, zeros, itself many times as loud, or another kind's.
            how = chance.integers(0, 4, rows)
            kinds = [values._replace(floats=one) for one in chance.choice(list(FLOATS), 1)]
            fresh = self._feed(kinds[0], rows, chance)
            return {
                one.name: np.stack(
                    [_other(int(how[row]), batch[one.name], fresh[one.name], row) for row in range(rows)]
                ).astype(batch[one.name].dtype)
                for one in self._inputs
            }

        def poison(batch: Feed, chance: np.random.Generator) -> Feed:
            # What is multiplied by 0 reaches an answer in this way, too.
            worst = chance.choice([np.nan, np.inf, -np.inf])
            return {
                name: np.full_like(value, worst) if value.dtype.kind == "f" else value for name, value in batch.items()
            }

        return Kind(
            name or values.floats,
            lambda rows, chance: self._feed(values, rows, chance),
            (others, poison) if any(one.datatype in NUMBERS for one in self._inputs) else (others,),
            tame=values.floats in TAME if tame is None else tame,
        )


def _count(size: int) -> Callable[[Sequence[int | str]], int]:
    return lambda dims: math.prod(size if isinstance(one, str) else one for one in dims)


def _other(how: int, batch: Array, fresh: Array, row: int) -> Array:
    other: Array = fresh[row]
    if how == 0:
        other = batch[0]
    elif how == 1 and batch.dtype.kind == "f":
        other = np.zeros_like(other)
    elif how == 2 and batch.dtype.kind == "f":
        other = np.clip(batch[row].astype(np.float64) * LOUD, -60_000, 60_000)
    return other
