"""Typed contents as raw ones: what a request says in `InferTensorContents`, as the bytes that Triton makes of it.

Triton answers both alike, in raw contents; but only raw ones can be merged by joining bytes. Floats and booleans lie in
the serialized message as they lie in memory, so they are copied; integers are read by numpy from the varints that they
are serialized as (https://protobuf.dev/programming-guides/encoding/#packed). What Triton would refuse, and what is too
much to convert between two turns of the event loop, stays as it came: Triton says itself what is wrong with it.
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from scheduler.triton.spec import ELEMENT_BYTES, MAX_STRINGS, ModelSpec

# Integers of a request that are converted here: about 2 ms of the event loop.
MAX_INTEGERS: Final = 131_072
# The field for each datatype, as in Triton's infer_handler.cc; FP16 and BF16 have none.
FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
# Serialized as they lie in memory: little-endian, and a boolean is a byte.
COPIED: Final = frozenset({"BOOL", "FP32", "FP64"})
VARINT_BYTES: Final = 10


def make_raw(request: Any, spec: ModelSpec) -> bool:
    """Turn the typed contents of a `ModelInferRequest` into raw ones, of all its inputs or of none.

    Args:
        request: a message of the caller's own; changed in place.
        spec: its model.

    Returns:
        Whether it was changed; False where there is nothing typed, where it does not fit, or is too much.
    """
    inputs = request.inputs
    if request.raw_input_contents or not inputs or len(inputs) > len(spec.inputs):
        return False
    contents = []
    integers = strings = 0
    for tensor in inputs:
        elements = _elements(tensor, spec)
        if elements is None:
            return False
        if tensor.datatype == "BYTES":
            strings += elements
        elif tensor.datatype not in COPIED:
            integers += elements
        if integers > MAX_INTEGERS or strings > MAX_STRINGS:
            return False
        raw = _raw(tensor, elements)
        if raw is None:
            return False
        contents.append(raw)
    for tensor in inputs:
        tensor.ClearField("contents")
    request.raw_input_contents.extend(contents)
    return True


def _elements(tensor: Any, spec: ModelSpec) -> int | None:
    """Elements of the tensor's shape; None where it is not the model's, or has no typed contents."""
    expected = spec.inputs.get(tensor.name)
    if expected is None or tensor.datatype != expected.datatype or not tensor.HasField("contents"):
        return None
    if len(tensor.shape) != len(expected.dims) + bool(spec.max_batch_size) or min(tensor.shape, default=0) < 0:
        return None
    elements: int = math.prod(tensor.shape)
    return elements


def _raw(tensor: Any, elements: int) -> bytes | None:
    """The tensor's bytes; None where its contents are not so many elements of its type, and nothing else."""
    filled = tensor.contents.ListFields()
    if not filled:
        return None if elements else b""
    name = FIELDS.get(tensor.datatype)
    if len(filled) != 1 or filled[0][0].name != name or len(filled[0][1]) != elements:
        return None
    if name == "bytes_contents":
        return b"".join([part for word in filled[0][1] for part in (len(word).to_bytes(4, "little"), word)])
    packed = _packed(tensor.contents.SerializeToString())
    if tensor.datatype in COPIED:
        return packed
    return _integers(packed, ELEMENT_BYTES[tensor.datatype]).tobytes()


def _packed(serialized: bytes) -> bytes:
    """What stands behind the tag and the length of a message's only field."""
    end, length, shift = 1, 0, 0
    while True:
        byte = serialized[end]
        length |= (byte & 0x7F) << shift
        end, shift = end + 1, shift + 7
        if byte < 0x80:
            return serialized[end : end + length]


def _integers(packed: bytes, element_bytes: int) -> npt.NDArray[Any]:
    """The lowest bytes of each varint: as in Triton, 300 as INT8 is 44."""
    data = np.frombuffer(packed, dtype=np.uint8)
    dtype = np.dtype(f"<u{element_bytes}")
    ends = np.flatnonzero(data < 0x80)
    if len(ends) == len(data):
        return data.astype(dtype)
    begins = np.concatenate(([0], ends[:-1] + 1))
    values = np.zeros(len(ends), dtype=np.uint64)
    for place in range(VARINT_BYTES):
        longer = np.flatnonzero(ends - begins >= place)
        if not len(longer):
            break
        values[longer] |= (data[begins[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.astype(dtype)
