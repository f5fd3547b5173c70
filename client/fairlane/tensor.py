"""numpy arrays to and from the tensors of the KServe v2 protocol, as Triton lays them out.

Raw contents are row-major and little-endian. BYTES is a sequence of elements, each a 4-byte little-endian length and
that many bytes. numpy has no dtype for BF16: its arrays are of `ml_dtypes.bfloat16`.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

from fairlane.errors import BackendError, InvalidRequest

Array = npt.NDArray[Any]

# KServe datatype -> numpy dtype of one element as it lies on the wire.
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_DATATYPES: Final = {dtype: datatype for datatype, dtype in DTYPES.items()}

# KServe datatype -> the field of InferTensorContents that carries it. FP16 and BF16 travel raw only.
_TYPED_FIELDS: Final[dict[str, str]] = {
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
SUPPORTED: Final = "bool, int8-64, uint8-64, float16/32/64, ml_dtypes.bfloat16, and str or bytes (sent as BYTES)"
_LENGTH: Final = struct.Struct("<I")


def encode(name: str, value: npt.ArrayLike) -> tuple[pb.ModelInferRequest.InferInputTensor, bytes]:
    """Return the tensor's description and its raw contents.

    Args:
        name: the input's name.
        value: an array, or what `numpy.asarray` makes one of. Python ints become INT64 and floats FP64: give an
            array of the dtype the model wants.

    Raises:
        InvalidRequest: if the values do not form an array of a supported dtype.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as exc:
        raise InvalidRequest(f"input {name!r}: expected an array of {SUPPORTED}; numpy says: {exc}") from exc
    if array.dtype.kind in "OSUT":
        datatype, raw = "BYTES", b"".join(_elements(name, array))
    else:
        datatype, raw = _numeric(name, array)
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=array.shape)
    return tensor, raw


def _numeric(name: str, array: Array) -> tuple[str, bytes]:
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _DATATYPES:
        raise InvalidRequest(f"input {name!r}: expected {SUPPORTED}; got dtype {array.dtype}")
    return _DATATYPES[dtype], array.astype(dtype, copy=False).tobytes()


def _elements(name: str, array: Array) -> Iterator[bytes]:
    for index, element in enumerate(array.ravel().tolist()):
        if not isinstance(element, str | bytes):
            raise InvalidRequest(
                f"input {name!r}: expected str or bytes in every element; got {type(element).__name__} at {index}"
            )
        try:
            data = element.encode() if isinstance(element, str) else element
        except UnicodeEncodeError as exc:
            raise InvalidRequest(
                f"input {name!r}: expected text that UTF-8 can hold; got {exc.reason} at {index}"
            ) from exc
        yield _LENGTH.pack(len(data)) + data


def decode(response: pb.ModelInferResponse) -> dict[str, Array]:
    """Return every output by name: arrays of the shape the response says, read-only, BYTES as object arrays of bytes.

    Raises:
        BackendError: if contents and description of an output do not agree.
    """
    raws = response.raw_output_contents
    outputs = {}
    for index, tensor in enumerate(response.outputs):
        # Raw contents are positional. A server sends all outputs raw or none; Triton sends them raw.
        array = _raw(tensor, raws[index]) if index < len(raws) else _typed(tensor)
        outputs[tensor.name] = _shaped(tensor, array)
    return outputs


def _shaped(tensor: pb.ModelInferResponse.InferOutputTensor, array: Array) -> Array:
    shape = tuple(tensor.shape)
    if array.size != int(np.prod(shape, dtype=np.int64)) or min(shape, default=0) < 0:
        raise BackendError(
            f"output {tensor.name!r}: expected elements for shape {list(shape)}; got {array.size} of them"
        )
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def _raw(tensor: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> Array:
    if tensor.datatype == "BYTES":
        return _objects(list(_split(tensor.name, raw)))
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        raise BackendError(f"output {tensor.name!r}: expected BYTES or one of {list(DTYPES)}; got {tensor.datatype!r}")
    if len(raw) % dtype.itemsize:
        raise BackendError(f"output {tensor.name!r}: expected whole {tensor.datatype} elements; got {len(raw)} bytes")
    return np.frombuffer(raw, dtype)


def _split(name: str, raw: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(raw):
        begin = start + _LENGTH.size
        end = begin + _LENGTH.unpack_from(raw, start)[0] if begin <= len(raw) else begin
        if end > len(raw):
            raise BackendError(
                f"output {name!r}: expected an element of BYTES to end by byte {len(raw)}; it ends at {end}"
            )
        yield raw[begin:end]
        start = end


def _typed(tensor: pb.ModelInferResponse.InferOutputTensor) -> Array:
    field = _TYPED_FIELDS.get(tensor.datatype)
    if field is None:
        raise BackendError(f"output {tensor.name!r}: expected raw contents for {tensor.datatype!r}; got none")
    values = getattr(tensor.contents, field)
    return _objects(list(values)) if field == "bytes_contents" else np.array(values, DTYPES[tensor.datatype])


def _objects(elements: list[bytes]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array
