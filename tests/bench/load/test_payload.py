from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, triton_to_np_dtype

from bench.load.payload import infer_request
from bench.load.stream import Stream

FIELDS = {"model": "minilm", "class": "interactive", "tenant": "t", "rate_per_s": 1, "rows": 2, "seq": 5}
STREAM = Stream.model_validate(FIELDS)


def metadata(shape: list[int], dtype: str = "INT64") -> service_pb2.ModelMetadataResponse:
    response = service_pb2.ModelMetadataResponse(name="minilm")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        response.inputs.add(name=name, datatype=dtype, shape=shape)
    return response


def parse(body: bytes) -> service_pb2.ModelInferRequest:
    return service_pb2.ModelInferRequest.FromString(body)


def test_open_dimensions_become_rows_and_tokens() -> None:
    request = parse(infer_request(STREAM, metadata([-1, -1]), seed=1))
    assert [list(tensor.shape) for tensor in request.inputs] == [[2, 5]] * 3
    ids, mask, types = (np.frombuffer(raw, np.int64) for raw in request.raw_input_contents)
    assert len(ids) == 10
    assert set(mask) == {1}
    assert set(types) == {0}
    assert len(request.parameters) == 0


def test_fixed_dimensions_are_kept() -> None:
    request = parse(infer_request(STREAM, metadata([-1, 1, 8, 8], "FP32"), seed=1))
    assert list(request.inputs[0].shape) == [2, 1, 8, 8]
    assert len(request.raw_input_contents[0]) == 2 * 64 * 4


def test_triton_priority_is_a_request_parameter() -> None:
    request = parse(infer_request(STREAM, metadata([-1, -1]), seed=1, priority=2))
    assert request.parameters["priority"].uint64_param == 2


def test_a_model_without_batch_is_named() -> None:
    with pytest.raises(ValueError, match="minilm: input input_ids has shape"):
        infer_request(STREAM, metadata([8, 8]), seed=1)


def test_unknown_dtype_is_named() -> None:
    with pytest.raises(ValueError, match="no values for dtype FP8"):
        infer_request(STREAM, metadata([-1, 1], "FP8"), seed=1)


def first(dtype: str, **changes: Any) -> Any:
    """The values of the first input, of any type that Triton has, two rows of five."""
    request = parse(infer_request(STREAM.model_copy(update=changes), metadata([-1, -1], dtype), seed=1))
    raw = request.raw_input_contents[0]
    if dtype == "BYTES":
        return deserialize_bytes_tensor(raw)
    return np.frombuffer(raw, np.uint16 if dtype == "BF16" else triton_to_np_dtype(dtype))


@pytest.mark.parametrize(
    "dtype",
    ["BOOL", *(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)), "FP16", "BF16", "FP32", "FP64"],
)
def test_every_type_has_values(dtype: str) -> None:
    values = first(dtype)
    assert len(values) == 10
    assert len(set(values.tolist())) > 1


def test_words_are_words() -> None:
    assert set(first("BYTES")) == {b"fair", b"lane"}


@pytest.mark.parametrize("dtype", ["INT64", "UINT8", "INT32"])
def test_integers_reach_as_far_as_they_are_said_to(dtype: str) -> None:
    assert set(first(dtype, integers_below=2)) == {0, 1}
    assert set(first(dtype, integers_below=1)) == {0}
    assert first("INT64").min() >= 1000


@pytest.mark.parametrize(
    "change",
    [
        {"rate_per_s": 0},
        {"rate_per_s": None},
        {"outstanding": 4},
        {"of_capacity": 2},
        {"rows": 0},
        {"profile": [{"at": 1, "level": 1}, {"at": 0, "level": 1}]},
    ],
)
def test_impossible_streams_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Stream.model_validate(FIELDS | change)
