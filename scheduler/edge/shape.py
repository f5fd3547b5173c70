"""What all of a request but its contents says, worked out once for each shape that clients send.

Clients send a handful of shapes, thousands of times each: whether one fits its model, and with what it may be merged,
is remembered by the bytes of its inputs and outputs. The lengths of the contents are compared every time. Requests
with BYTES are checked in full, since their contents have to be walked through.
"""

from typing import Any, Final, NamedTuple

from scheduler.edge.validate import check
from scheduler.triton.joining import join_key
from scheduler.triton.merge import shape_key, with_parameters
from scheduler.triton.pad import Padding
from scheduler.triton.spec import ModelSpec

# Shapes that are remembered; the next one starts anew. At most 4 MB.
MAX_SHAPES: Final = 1024
# Larger descriptions are not remembered: with typed contents they hold the tensors themselves.
DESCRIPTION_BYTES: Final = 4096


class Shape(NamedTuple):
    """What is known of a request that fits its model.

    Attributes:
        rows: the batch dimension, or 1 for a model that has none.
        merge_key: requests with the same key may ride together; None: it rides alone.
        join_key: requests with the same key are run as one by Triton itself (joining.py); None: it does not do so.
        latency_key: requests with the same key take as long, as far as their shapes tell; None: nothing tells.
        padding: how it may be padded to ride with longer ones; None: it may not.
    """

    rows: int
    merge_key: str | None
    join_key: str | None
    latency_key: str | None
    padding: Padding | None = None


class _Remembered(NamedTuple):
    spec: ModelSpec
    padding: Padding | None
    content_bytes: list[int]
    shape: Shape


class Shapes:
    """The shapes that were found to fit."""

    def __init__(self) -> None:
        self._remembered: dict[tuple[Any, ...], _Remembered] = {}

    def of(self, request: Any, spec: ModelSpec, request_bytes: int, padding: Padding | None = None) -> Shape:
        """Check a request, or find that one like it has been checked.

        Args:
            request: a `ModelInferRequest`.
            spec: its model.
            request_bytes: the size of the message.
            padding: how the model's requests are padded, the same object each time; None: they are not.

        Raises:
            RequestError: INVALID_ARGUMENT: it does not fit (validate.py).
        """
        content_bytes = [len(content) for content in request.raw_input_contents]
        if request_bytes - sum(content_bytes) > DESCRIPTION_BYTES:
            return _with_parameters(_checked(request, spec, padding), request)
        # The client's id and parameters are not among it: no two requests might be alike.
        description = (
            spec.name,
            request.model_version,
            tuple([tensor.SerializeToString() for tensor in request.inputs]),
            tuple([output.SerializeToString() for output in request.outputs]),
        )
        known = self._remembered.get(description)
        if (
            known is not None
            and known.spec is spec
            and known.padding is padding
            and known.content_bytes == content_bytes
        ):
            return _with_parameters(known.shape, request)
        shape = _checked(request, spec, padding)
        if not any(tensor.datatype == "BYTES" for tensor in request.inputs):
            self._remember(description, _Remembered(spec, padding, content_bytes, shape))
        return _with_parameters(shape, request)

    def _remember(self, description: tuple[Any, ...], remembered: _Remembered) -> None:
        if len(self._remembered) >= MAX_SHAPES:
            self._remembered.clear()
        self._remembered[description] = remembered


def _checked(request: Any, spec: ModelSpec, padding: Padding | None) -> Shape:
    rows, complete = check(request, spec)
    joined = join_key(request, spec)
    if not complete:
        return Shape(rows, None, joined, joined)
    key = shape_key(request, spec, padding)
    pads = key is not None and padding is not None and padding.length_of(request) is not None
    # What Triton runs as one takes the time of one run. Padded lengths run as long as their bucket says.
    return Shape(rows, key, joined, key if pads or joined is None else joined, padding if pads else None)


def _with_parameters(shape: Shape, request: Any) -> Shape:
    if not request.parameters:
        return shape
    return shape._replace(merge_key=with_parameters(shape.merge_key, request))
