"""Several requests as one, and one answer as several.

Triton's raw tensors are row-major with the batch dimension first, so rows concatenate byte by byte
and split at row boundaries without being decoded. Which requests may be merged is decided before
(`merge_key`): the same model, version, input names, dtypes, non-batch shapes, requested outputs and
parameters, and nothing that a merge could change (parameters of tensors, shared memory, typed contents).

Triton hands parameters to a model with each request, so a merged request carries once what all in it say.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

from tritonclient.grpc import service_pb2

from scheduler.triton.pad import Padding, bucket, cut, padded
from scheduler.triton.spec import ELEMENT_BYTES, ModelSpec, string_end

# Request parameters that Fairlane reads itself and that a merged request therefore need not carry.
OWN_PARAMETERS: Final = frozenset({"priority", "timeout"})
# What Triton itself reads of a request; it refuses others that begin with `triton_`.
SEQUENCE_PARAMETERS: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})
RESERVED: Final = "triton_"
# Serialized, of a request that is merged: they are a part of its key, which is kept for each that waits.
PARAMETER_BYTES: Final = 1024


class SplitError(ValueError):
    """The answer to a merged request cannot be split into the rows that were asked."""


def merge_key(request: Any, spec: ModelSpec, padding: Padding | None = None) -> str | None:
    """The key under which a validated `ModelInferRequest` may be merged; None where it must ride alone.

    Args:
        request: the message.
        spec: its model.
        padding: how unlike lengths become alike; None: they do not.
    """
    return with_parameters(shape_key(request, spec, padding), request)


def shape_key(request: Any, spec: ModelSpec, padding: Padding | None = None) -> str | None:
    """The part of the merge key that the request's inputs and outputs make; None where it must ride alone."""
    length = None if padding is None else padding.length_of(request)
    if not spec.mergeable or not request.raw_input_contents:
        return None
    parts = [request.model_version]
    for tensor in request.inputs:
        if tensor.parameters or tensor.HasField("contents"):
            return None
        sizes = [str(size) for size in tensor.shape[1:]]
        if padding is not None and length is not None and tensor.name in padding.inputs:
            sizes[padding.axis - 1] = f"to {bucket(length)}"
        parts.append(f"{tensor.name}:{tensor.datatype}:{','.join(sizes)}")
    for output in request.outputs:
        if output.parameters:
            return None
        parts.append(f">{output.name}")
    return repr(parts)  # not joined: the names are the client's, and may hold any separator


def with_parameters(key: str | None, request: Any) -> str | None:
    """The key of the request's shape, and what its parameters add to it; None where they keep it alone.

    Values are taken as serialized: a number of one kind is not one of another, and no NaN differs from itself.
    """
    parameters = request.parameters
    if key is None or not parameters:
        return key
    shared = []
    size_bytes = 0
    for name, value in parameters.items():
        if name in OWN_PARAMETERS:
            continue
        if name in SEQUENCE_PARAMETERS or name.startswith(RESERVED):
            return None
        serialized = value.SerializeToString()
        size_bytes += len(name) + len(serialized)
        if size_bytes > PARAMETER_BYTES:
            return None
        shared.append((name, serialized))
    return f"{key} {sorted(shared)}" if shared else key


def merge(requests: Sequence[Any], rows: Sequence[int], padding: Padding | None = None) -> Any:
    """One `ModelInferRequest` with the rows of all, in order.

    Args:
        requests: of one merge key, at least one.
        rows: rows of each.
        padding: how unlike lengths become alike; None: there are none.
    """
    first = requests[0]
    merged = service_pb2.ModelInferRequest(model_name=first.model_name, model_version=first.model_version)
    merged.outputs.extend(first.outputs)
    for name, value in first.parameters.items():
        if name not in OWN_PARAMETERS:
            merged.parameters[name].CopyFrom(value)
    total = sum(rows)
    for place, tensor in enumerate(first.inputs):
        if padding is not None and tensor.name in padding.inputs:
            _add_padded(merged, requests, place, padding)
            continue
        merged.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=[total, *tensor.shape[1:]])
        merged.raw_input_contents.append(b"".join(request.raw_input_contents[place] for request in requests))
    return merged


def unlike(requests: Sequence[Any], padding: Padding | None) -> Padding | None:
    """The padding, where the requests are of unlike lengths; None where their rows can be joined as they are."""
    if padding is None or len({padding.length_of(request) for request in requests}) == 1:
        return None
    return padding


def _add_padded(merged: Any, requests: Sequence[Any], place: int, padding: Padding) -> None:
    """Add the inputs of this place, padded to the longest."""
    tensor, axis = requests[0].inputs[place], padding.axis
    shapes = [tuple(request.inputs[place].shape) for request in requests]
    size = list(shapes[0])
    size[0], size[axis] = sum(shape[0] for shape in shapes), max(shape[axis] for shape in shapes)
    merged.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=size)
    raws = [request.raw_input_contents[place] for request in requests]
    merged.raw_input_contents.append(padded(raws, shapes, axis, tensor.datatype, padding.inputs[tensor.name]))


def split(response: Any, requests: Sequence[Any], rows: Sequence[int], padding: Padding | None = None) -> list[Any]:
    """One `ModelInferResponse` for each request, with its own rows, its own length, its own id, and all parameters.

    Raises:
        SplitError: an output does not have as many rows as were sent, or not the bytes for them.
    """
    if len(response.raw_output_contents) != len(response.outputs):
        raise SplitError(
            f"model {response.model_name}: expected raw contents for {len(response.outputs)} outputs, "
            f"got {len(response.raw_output_contents)}"
        )
    tensors = list(zip(response.outputs, response.raw_output_contents, strict=True))
    if padding is None:
        lengths: list[int | None] = [None] * len(requests)
        pieces = [_split_tensor(*each, rows) for each in tensors]
    else:
        lengths = [padding.length_of(request) for request in requests]
        pieces = [_cut_tensor(*each, rows, [length or 0 for length in lengths], padding) for each in tensors]
    blanks = {
        each: _blank(response, *each, padding).SerializeToString() for each in set(zip(rows, lengths, strict=True))
    }
    parts = []
    for place, (request, count, length) in enumerate(zip(requests, rows, lengths, strict=True)):
        part = service_pb2.ModelInferResponse.FromString(blanks[count, length])
        if request.id:
            part.id = request.id
        part.raw_output_contents.extend([piece[place] for piece in pieces])
        parts.append(part)
    return parts


def _cut_tensor(tensor: Any, raw: bytes, rows: Sequence[int], lengths: Sequence[int], padding: Padding) -> list[bytes]:
    """As _split_tensor, of an answer to requests that were padded to the longest."""
    pieces = _split_tensor(tensor, raw, rows)
    if tensor.name not in padding.outputs:
        return pieces
    if tensor.shape[padding.axis] != max(lengths):
        raise SplitError(
            f"output {tensor.name}: expected {max(lengths)} along axis {padding.axis} as in the inputs, "
            f"got shape {list(tensor.shape)}"
        )
    return cut(raw, tensor.shape, padding.axis, tensor.datatype, list(zip(rows, lengths, strict=True)))


def _blank(response: Any, rows: int, length: int | None, padding: Padding | None) -> Any:
    """An answer with so many rows, and without contents and id: all that those of one size have in common."""
    blank = service_pb2.ModelInferResponse(model_name=response.model_name, model_version=response.model_version)
    _copy_parameters(response, blank)
    for tensor in response.outputs:
        shape = [rows, *tensor.shape[1:]]
        if padding is not None and length is not None and tensor.name in padding.outputs:
            shape[padding.axis] = length
        output = blank.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        _copy_parameters(tensor, output)
    return blank


def _copy_parameters(source: Any, target: Any) -> None:
    for name, value in source.parameters.items():
        target.parameters[name].CopyFrom(value)


def _split_tensor(tensor: Any, raw: bytes, rows: Sequence[int]) -> list[bytes]:
    total = sum(rows)
    if not tensor.shape or tensor.shape[0] != total:
        raise SplitError(f"output {tensor.name}: expected {total} rows, got shape {list(tensor.shape)}")
    elements = math.prod(tensor.shape[1:])
    if tensor.datatype == "BYTES":
        return _split_strings(tensor.name, raw, [count * elements for count in rows])
    if tensor.datatype not in ELEMENT_BYTES:
        raise SplitError(f"output {tensor.name}: expected a datatype of Triton's, got {tensor.datatype!r}")
    row_bytes = elements * ELEMENT_BYTES[tensor.datatype]
    if len(raw) != total * row_bytes:
        raise SplitError(f"output {tensor.name}: expected {total * row_bytes} bytes, got {len(raw)}")
    pieces = []
    begin = 0
    for count in rows:
        end = begin + count * row_bytes
        pieces.append(raw[begin:end])
        begin = end
    return pieces


def _split_strings(name: str, raw: bytes, counts: Sequence[int]) -> list[bytes]:
    """Cut length-prefixed elements after so many of them each."""
    pieces = []
    begin = end = 0
    for count in counts:
        try:
            end = string_end(raw, begin, count)
        except ValueError as error:
            raise SplitError(f"output {name}: {error}") from None
        pieces.append(raw[begin:end])
        begin = end
    if end != len(raw):
        raise SplitError(f"output {name}: expected {end} bytes, got {len(raw)}")
    return pieces
