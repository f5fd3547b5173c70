"""Requests of unlike lengths as one: padded to the longest of them, and answered at their own lengths.

A model with a mask is told which places are real, so what stands behind them may be anything; clients of such a model
pad their own batches, too. The operator says so of a model, and which axis and mask it is. Lengths fall into buckets,
and only requests of one bucket ride together: at most a third of a padded row is padding, and nothing of rows as long
as the bucket's bound. Buckets end at 16, 24, 32, 48, 64, 96, ..., powers of two and one and a half of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scheduler.triton.spec import ModelSpec

Array = npt.NDArray[Any]

# Shorter requests share a bucket: what padding them wastes is little beside what a batch takes anyway.
SHORTEST: Final = 16
# Types as they lie in raw contents; BF16 is the upper half of an FP32.
NUMPY: Final = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "BF16": "<u2",
    "FP32": "<f4",
    "FP64": "<f8",
}


@dataclass(frozen=True, slots=True)
class Padding:
    """How requests for one model are padded.

    Attributes:
        axis: of tensors as requests have them; 0 is the batch.
        inputs: those that have the axis, and what they are padded with.
        outputs: those that may have it.
    """

    axis: int
    inputs: Mapping[str, float]
    outputs: frozenset[str]

    def length_of(self, request: Any) -> int | None:
        """The length of a validated request along the axis; None where it cannot be padded."""
        lengths = {tensor.name: tensor.shape[self.axis] for tensor in request.inputs if tensor.name in self.inputs}
        if len(lengths) != len(self.inputs) or len(set(lengths.values())) != 1:
            return None  # without its mask, or with one of another length
        return lengths.popitem()[1] or None


def padding_of(spec: ModelSpec, axis: int, mask: str, values: Mapping[str, float]) -> Padding:
    """How requests for the model are padded, by what the operator says.

    Raises:
        ValueError: the model has no such axis, mask or inputs; with what was expected and what came.
    """
    place = axis - 1  # the model's dims leave the batch out
    inputs = {name for name, each in spec.inputs.items() if _open(each.dims, place)}
    if mask not in inputs:
        raise ValueError(f"mask: expected an input whose axis {axis} has any size, got {mask!r}")
    unknown = sorted(set(values) - inputs | set(values) & {mask})
    if unknown:
        expected = ", ".join(sorted(inputs - {mask})) or "none"
        raise ValueError(f"values: expected some of {expected}, got {', '.join(unknown)}")
    outputs = {name for name, dims in spec.output_dims.items() if _open(dims, place)}
    for name, datatype in [(name, spec.inputs[name].datatype) for name in inputs] + [
        (name, spec.outputs[name]) for name in outputs
    ]:
        if datatype not in NUMPY:
            raise ValueError(f"axis: expected numbers along axis {axis}, but {name} is {datatype}")
    return Padding(axis, {name: values.get(name, 0.0) for name in sorted(inputs)}, frozenset(outputs))


def bucket(length: int) -> int:
    """The bound of the bucket that a length falls into: 16, 24, 32, 48, 64, 96, ..."""
    power = max(SHORTEST, 1 << (length - 1).bit_length())
    between = power * 3 // 4
    return between if between >= SHORTEST and length <= between else power


def padded(raws: Sequence[bytes], shapes: Sequence[Sequence[int]], axis: int, datatype: str, value: float) -> bytes:
    """Tensors of one type as one, one behind the other along the first axis, padded along `axis` to the longest.

    Args:
        raws: their contents.
        shapes: equal but for their first size and that of `axis`.
        axis: which is padded.
        datatype: of Triton's, numbers or booleans.
        value: what stands in the places that are added.
    """
    arrays = [np.frombuffer(raw, dtype=NUMPY[datatype]).reshape(shape) for raw, shape in zip(raws, shapes, strict=True)]
    size = list(shapes[0])
    size[0] = sum(shape[0] for shape in shapes)
    size[axis] = max(shape[axis] for shape in shapes)
    joined = np.full(size, _filler(datatype, value), dtype=NUMPY[datatype])
    begin = 0
    for array in arrays:
        joined[(slice(begin, begin + len(array)), *_to(axis, array.shape[axis]))] = array
        begin += len(array)
    return joined.tobytes()


def cut(raw: bytes, shape: Sequence[int], axis: int, datatype: str, pieces: Sequence[tuple[int, int]]) -> list[bytes]:
    """A tensor as several, each with so many rows and so long along `axis`.

    Args:
        raw: its contents.
        shape: as it is.
        axis: along which it was padded.
        datatype: of Triton's, numbers or booleans.
        pieces: (rows, length) of each, in order.
    """
    array = np.frombuffer(raw, dtype=NUMPY[datatype]).reshape(tuple(shape))
    parts, begin = [], 0
    for rows, length in pieces:
        parts.append(array[(slice(begin, begin + rows), *_to(axis, length))].tobytes())
        begin += rows
    return parts


def _open(dims: Sequence[int], place: int) -> bool:
    return 0 <= place < len(dims) and dims[place] == -1


def _to(axis: int, length: int) -> tuple[slice, ...]:
    """The axes from the second one on, up to `axis`, of which the first `length` places are meant."""
    return (*(slice(None) for _ in range(axis - 1)), slice(length))


def _filler(datatype: str, value: float) -> Any:
    return np.float32(value).view(np.uint32) >> 16 if datatype == "BF16" else value
