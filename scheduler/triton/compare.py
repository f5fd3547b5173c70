"""Whether a request that rode with others was answered as it is alone.

Kernels of one model differ in the last bits with the size of a batch; rows that are mixed up differ by about as much as
answers differ from each other. So what is allowed is a part of how far the answers of the batch are spread: of each
output by itself, and in it of each slice along every axis that has few indices, since boxes up to 640 hide scores up to
1 where they share an output. Integers, booleans and strings are choices: they are the same or they are not.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from scheduler.triton.answer_parameters import parameters_of
from scheduler.triton.pad import NUMPY
from scheduler.triton.spec import string_end

Array = npt.NDArray[Any]

# An axis with more indices than this is no list of channels.
FEW: Final = 256
# Answers of others that tell how far values are spread, at most.
BESIDE: Final = 8


class Rounding(NamedTuple):
    """What rounding alone may make, as a part of the largest number of a slice, and of the whole output."""

    of_slice: float
    of_output: float


# FP64 is often computed in FP32, and FP32 in TF32.
ROUNDING: Final = {
    "FP16": Rounding(5e-3, 5e-4),
    "BF16": Rounding(4e-2, 4e-3),
    "FP32": Rounding(1e-4, 1e-6),
    "FP64": Rounding(1e-4, 1e-6),
}


class Tolerance(NamedTuple):
    """By how much two answers to one request may differ.

    Attributes:
        of_spread: root mean square of the difference, as a part of the standard deviation of the values.
        of_choices: part of integers, booleans and strings that may be others.
    """

    of_spread: float
    of_choices: float


def difference(one: Any, other: Any, beside: Sequence[Any], tolerance: Tolerance) -> str | None:
    """How one answer to a request differs from another, in words with figures; None where they agree.

    Args:
        one: a `ModelInferResponse` in raw contents.
        other: another one to the same request.
        beside: answers to other requests: those of the same shapes but for the rows tell how far values are spread.
        tolerance: what is no difference.
    """
    if _signature(one) != _signature(other):
        return f"outputs {_signature(one)} are {_signature(other)} alone"
    if parameters_of(one) != parameters_of(other):
        return "the answer's parameters are others alone"
    alike = [each for each in beside if _rows_apart(each) == _rows_apart(other)][:BESIDE]
    for place, tensor in enumerate(other.outputs):
        merged, alone = one.raw_output_contents[place], other.raw_output_contents[place]
        if merged == alone:
            continue
        if tensor.datatype in ROUNDING:
            spread = [_array(each.outputs[place], each.raw_output_contents[place]) for each in alike]
            words = _off(tensor.datatype, _array(tensor, merged), _array(tensor, alone), spread, tolerance.of_spread)
        else:
            words = _changed(_choices(tensor, merged), _choices(tensor, alone), tolerance.of_choices)
        if words is not None:
            return f"output {tensor.name}{words}"
    return None


def _signature(answer: Any) -> list[tuple[str, str, list[int]]]:
    return [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in answer.outputs]


def _rows_apart(answer: Any) -> list[tuple[str, str, list[int]]]:
    return [(name, datatype, shape[1:]) for name, datatype, shape in _signature(answer)]


def _array(tensor: Any, raw: bytes) -> Array:
    shape = tuple(tensor.shape)
    if tensor.datatype == "BF16":  # the upper half of an FP32
        return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(raw, dtype=NUMPY[tensor.datatype]).reshape(shape)


def _choices(tensor: Any, raw: bytes) -> Array:
    if tensor.datatype != "BYTES":
        return _array(tensor, raw)
    words, begin = [], 0
    while begin < len(raw):
        end = string_end(raw, begin, 1)
        words.append(raw[begin:end])
        begin = end
    return np.array(words, dtype=object)


def _changed(one: Array, other: Array, most: float) -> str | None:
    part = float(np.mean(one != other)) if one.shape == other.shape else 1.0
    return f" has other values in {part:.0%} of its places" if part > most else None


def _off(datatype: str, one: Array, other: Array, beside: list[Array], most: float) -> str | None:
    one, other = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(one) & np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return " is infinite or not a number in other places"
    one, other = np.where(finite, one, 0.0), np.where(finite, other, 0.0)
    error, size = one - other, np.abs(other)
    everything = np.concatenate([np.where(np.isfinite(each), each, 0.0) for each in (other, *beside)])
    rounding = ROUNDING[datatype]
    of_output = rounding.of_output * float(size.max(initial=0.0))
    for axis, among in _slicings(other.shape):
        off = np.sqrt(np.mean(np.square(error), axis=among))
        # Rows are answers: they are spread as all of them are.
        spread = np.broadcast_to(everything.std(axis=None if axis == 0 else among), off.shape)
        allowed = most * spread + rounding.of_slice * size.max(axis=among) + of_output
        worst = int(np.argmax(off - allowed))
        if off.flat[worst] > allowed.flat[worst]:
            where = "" if axis is None else f", index {worst} of axis {axis},"
            return f"{where} is off by {off.flat[worst]:.3g} where values are spread by {spread.flat[worst]:.3g}"
    return None


def _slicings(shape: tuple[int, ...]) -> Iterator[tuple[int | None, tuple[int, ...] | None]]:
    """The whole output, and the slices along every axis that has few indices: that axis, and all others."""
    if 0 in shape:
        return
    yield None, None
    for axis, size in enumerate(shape):
        if len(shape) > 1 and 1 < size <= FEW:
            yield axis, tuple(each for each in range(len(shape)) if each != axis)
