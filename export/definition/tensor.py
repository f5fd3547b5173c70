"""The tensors of a model, inputs and outputs, and whether an array fits one."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from export.errors import DefinitionError

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
# What each sample came to, by one score: [samples].
Outcome = npt.NDArray[np.floating[Any]]
# What one inference request carries: input name -> tensor. Also the form onnxruntime takes.
Feed = Mapping[str, Array]

BATCH: Final = "batch"
# Triton's names of the datatypes that a numpy array can hold, without TYPE_.
NUMPY_TYPES: Final[Mapping[str, npt.DTypeLike]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "STRING": np.object_,
}
# The largest number that FP32 has a square of: a norm, or a product of two of its like, can be computed.
LARGEST: Final = np.sqrt(np.float64(np.finfo(np.float32).max))
# Fields are of the types that they are declared with; pydantic's error names those that are not.
CHECKED: Final = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


@dataclass(frozen=True, config=CHECKED)
class Tensor:
    """An input or output.

    Args:
        name: as in the graph and in Triton.
        datatype: Triton's name without TYPE_: FP32, INT64, ...
        dims: every axis; a number where the size is fixed, a name where it varies. The same name is the same size,
            and `past+new` is the sum of two.
            A first axis named `batch`, in every input and output, makes a model whose requests Triton may batch.
    """

    name: str
    datatype: str
    dims: tuple[int | str, ...]

    def __post_init__(self) -> None:
        """Refuse what could never be served."""
        if self.datatype not in NUMPY_TYPES:
            raise DefinitionError(
                f"{self.name}: datatype: expected one of {', '.join(NUMPY_TYPES)}; got {self.datatype!r}"
            )
        for size in self.dims:
            if not (isinstance(size, str) and all(part.isidentifier() for part in size.split("+"))) and not (
                isinstance(size, int) and size > 0
            ):
                raise DefinitionError(f"{self.name}: dims: expected positive numbers and axis names, got {self.dims}")

    def varying(self) -> dict[int, str]:
        """Axis -> name, of each axis that varies."""
        return {axis: size for axis, size in enumerate(self.dims) if isinstance(size, str)}


def check_array(tensor: Tensor, array: Array, sizes: dict[str, int], what: str) -> None:
    """Refuse an array that is not what the tensor declares; `sizes` collects the sizes of named axes."""
    if not isinstance(array, np.ndarray) or array.dtype != np.dtype(NUMPY_TYPES[tensor.datatype]):
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise DefinitionError(f"{what} {tensor.name!r}: expected {tensor.datatype}, got {got}")
    fits = len(array.shape) == len(tensor.dims)
    for want, size in zip(tensor.dims, array.shape, strict=False):
        if isinstance(want, str) and "+" in want:
            parts = [sizes.get(part) for part in want.split("+")]
            fits &= None in parts or size == sum(part or 0 for part in parts)
        else:
            fits &= size == (sizes.setdefault(want, size) if isinstance(want, str) else want)
    if not fits:
        known = {name: sizes[name] for name in tensor.varying().values() if name in sizes}
        raise DefinitionError(
            f"{what} {tensor.name!r}: expected shape [{', '.join(map(str, tensor.dims))}]"
            f"{f' with {known}' if known else ''}, got {list(array.shape)}"
        )


def describe(feed: Feed) -> str:
    """A feed's shapes as text: `input_ids[2,16] attention_mask[2,16]`; of many inputs, the first four."""
    shapes = [f"{name}[{','.join(map(str, np.shape(value)))}]" for name, value in feed.items()]
    return " ".join(shapes[:4]) + (f" and {len(shapes) - 4} more" if len(shapes) > 4 else "")


def extent(feed: Feed) -> str:
    """What the numbers of a feed reach: `input_ids: 0 to 30521, attention_mask: 0 to 1`."""
    arrays = {name: np.asarray(value) for name, value in feed.items()}
    numbers = {name: value for name, value in arrays.items() if value.dtype.kind in "iuf" and value.size}
    return ", ".join(f"{name}: {value.min():g} to {value.max():g}" for name, value in numbers.items())


def beyond(feed: Feed) -> str | None:
    """The first number of a feed that is none, or too large to be computed with, in words; None: there is none such."""
    for name, given in feed.items():
        value = np.asarray(given)
        if value.dtype.kind != "f":
            continue
        # Written so that a NaN, which compares false with everything, is found.
        places = np.argwhere(~(np.abs(value) <= LARGEST))
        if len(places):
            place = tuple(map(int, places[0]))
            return f"input {name!r}: expected numbers of at most {LARGEST:.1e}, got {value[place]:g} at {list(place)}"
    return None
