"""Checks a request against what Triton says of its model, before it is queued.

A request that Triton would refuse never takes a place in a queue, and never fails the requests that
it would have ridden with.
"""

import math
from typing import Any, Final, NamedTuple

from scheduler.errors import invalid, shown
from scheduler.triton.spec import ELEMENT_BYTES, MAX_STRINGS, ModelSpec, TensorSpec, string_end

# Parameter of a requested output: its so many highest numbers, with their labels.
CLASSIFICATION: Final = "classification"
# Dimensions that a message shows.
SHOWN_DIMS: Final = 16


class Checked(NamedTuple):
    """What the check found.

    Attributes:
        rows: the batch dimension, or 1 for a model that has none.
        complete: False where BYTES were too many to walk through; such a request must not be merged.
    """

    rows: int
    complete: bool


def check(request: Any, spec: ModelSpec) -> Checked:
    """Check names, datatypes, shapes, byte counts and the batch size.

    Its time is bounded by the model's inputs and outputs and by MAX_STRINGS, whatever the size of the request.

    Args:
        request: a `ModelInferRequest`.
        spec: its model.

    Raises:
        RequestError: INVALID_ARGUMENT, naming the input, what was expected and what came.
    """
    _check_names(request, spec)
    rows = 1
    strings = 0
    # Tensors in shared memory have no raw contents; the others have theirs in order.
    raw = iter(request.raw_input_contents)
    for place, tensor in enumerate(request.inputs):
        expected = spec.inputs[tensor.name]
        _check_datatype(tensor, expected, spec)
        _check_shape(tensor.shape, expected, spec)
        if request.raw_input_contents and not _in_shared_memory(tensor):
            if tensor.datatype == "BYTES":
                strings += math.prod(tensor.shape)
            if strings <= MAX_STRINGS or tensor.datatype != "BYTES":
                _check_bytes(tensor, next(raw), spec)
            else:
                next(raw)
        if spec.max_batch_size:
            if place and tensor.shape[0] != rows:
                raise invalid(
                    f"model {spec.name}, input {tensor.name}: expected a batch of {rows} as in input "
                    f"{request.inputs[0].name}, got {tensor.shape[0]}"
                )
            rows = tensor.shape[0]
    if spec.max_batch_size and not 1 <= rows <= spec.max_batch_size:
        raise invalid(f"model {spec.name}: expected a batch of 1 to {spec.max_batch_size}, got {rows}")
    return Checked(rows, strings <= MAX_STRINGS)


def _check_names(request: Any, spec: ModelSpec) -> None:
    if len(request.inputs) > len(spec.inputs):
        # Said before any of them is looked at: there may be millions.
        names = {tensor.name for tensor in request.inputs[: len(spec.inputs) + 1]}
        if len(names) <= len(spec.inputs) and names <= spec.inputs.keys():
            raise invalid(f"model {spec.name}: an input is given twice; expected inputs {', '.join(spec.inputs)}")
        raise invalid(
            f"model {spec.name}: expected inputs {', '.join(spec.inputs)}, got {len(request.inputs)}: "
            f"{', '.join(sorted(names))}"
        )
    given = [tensor.name for tensor in request.inputs]
    if len(set(given)) != len(given):
        raise invalid(f"model {spec.name}: an input is given twice: {', '.join(given)}")
    unknown = [name for name in given if name not in spec.inputs]
    missing = [name for name, tensor in spec.inputs.items() if not tensor.optional and name not in given]
    if unknown or missing:
        raise invalid(f"model {spec.name}: expected inputs {', '.join(spec.inputs)}, got {', '.join(given) or 'none'}")
    raw = len(request.raw_input_contents)
    if raw:
        in_raw = sum(1 for tensor in request.inputs if not _in_shared_memory(tensor))
        if raw != in_raw:
            raise invalid(f"model {spec.name}: expected raw contents for {in_raw} inputs, got {raw}")
    if request.outputs:
        _check_outputs(request, spec)


def _check_outputs(request: Any, spec: ModelSpec) -> None:
    """No more outputs than there are, each by its name, and no classes of strings: these crash Triton 24.10."""
    for output in request.outputs[: len(spec.outputs) + 1]:
        if output.name not in spec.outputs:
            raise invalid(
                f"model {spec.name}: unknown output {shown(output.name)}; it has {', '.join(sorted(spec.outputs))}"
            )
        if spec.outputs[output.name] == "BYTES" and CLASSIFICATION in output.parameters:
            raise invalid(
                f"model {spec.name}, output {output.name}: expected no parameter {CLASSIFICATION!r}, since it is BYTES"
            )
    if len(request.outputs) > len(spec.outputs):
        raise invalid(
            f"model {spec.name}: expected at most its {len(spec.outputs)} outputs, got {len(request.outputs)}"
        )


def _in_shared_memory(tensor: Any) -> bool:
    return "shared_memory_region" in tensor.parameters


def _check_datatype(tensor: Any, expected: TensorSpec, spec: ModelSpec) -> None:
    if tensor.datatype != expected.datatype:
        raise invalid(
            f"model {spec.name}, input {tensor.name}: expected datatype {expected.datatype}, "
            f"got {tensor.datatype or 'none'}"
        )


def _check_shape(shape: Any, expected: TensorSpec, spec: ModelSpec) -> None:
    wanted = (-1, *expected.dims) if spec.max_batch_size else expected.dims
    fits = len(shape) == len(wanted) and all(
        size >= 0 and want in {-1, size} for size, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        raise invalid(f"model {spec.name}, input {expected.name}: expected shape {_shown(wanted)}, got {_given(shape)}")


def _check_bytes(tensor: Any, raw: bytes, spec: ModelSpec) -> None:
    elements = math.prod(tensor.shape)
    if tensor.datatype == "BYTES":
        _check_strings(tensor, raw, elements, spec)
        return
    expected = elements * ELEMENT_BYTES[tensor.datatype]
    if len(raw) != expected:
        raise invalid(
            f"model {spec.name}, input {tensor.name}: expected {expected} bytes for shape "
            f"{list(tensor.shape)} of {tensor.datatype}, got {len(raw)}"
        )


def _check_strings(tensor: Any, raw: bytes, elements: int, spec: ModelSpec) -> None:
    """A length that reaches beyond the data would fail the whole batch inside Triton."""
    try:
        end = string_end(raw, 0, elements)
    except ValueError as error:
        raise invalid(
            f"model {spec.name}, input {tensor.name}: expected {elements} elements for shape "
            f"{list(tensor.shape)} of BYTES, each behind its length (4 bytes, little-endian): {error}"
        ) from None
    if end != len(raw):
        raise invalid(
            f"model {spec.name}, input {tensor.name}: expected {elements} elements for shape "
            f"{list(tensor.shape)} of BYTES, which end after {end} bytes, got {len(raw)} bytes"
        )


def _given(shape: Any) -> str:
    shown = list(shape[:SHOWN_DIMS])
    return str(shown) if len(shape) <= SHOWN_DIMS else f"{len(shape)} dimensions: {shown}..."


def _shown(dims: tuple[int, ...]) -> str:
    return "[" + ", ".join("any" if size == -1 else str(size) for size in dims) + "]"
