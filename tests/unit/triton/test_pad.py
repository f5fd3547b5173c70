"""Unlike lengths as one: what is padded, with what, and how answers are cut back."""

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from scheduler.triton.merge import SplitError, merge, merge_key, split, unlike
from scheduler.triton.pad import Padding, bucket, padding_of
from scheduler.triton.spec import ModelSpec, TensorSpec


def spec_of(**inputs: tuple[str, tuple[int, ...]]) -> ModelSpec:
    return ModelSpec(
        "m",
        8,
        1,
        {name: TensorSpec(name, datatype, dims, optional=True) for name, (datatype, dims) in inputs.items()},
        mergeable=True,
        versions=("1",),
        outputs={"TOKENS": "FP32", "POOLED": "FP32"},
        output_dims={"TOKENS": (-1, 2), "POOLED": (3,)},
    )


SPEC = spec_of(ids=("INT64", (-1,)), mask=("INT64", (-1,)), scale=("FP32", (1,)))
PADDING = padding_of(SPEC, 1, "mask", {"ids": 7})


def request(rows: int, length: int, *, mask: int | None = None, first: int = 0, **about: Any) -> Any:
    message = service_pb2.ModelInferRequest(model_name="m", **about)
    ids = np.arange(first, first + rows * length, dtype=np.int64).reshape(rows, length)
    ones = np.ones((rows, length if mask is None else mask), dtype=np.int64)
    for name, array, kind in (
        ("ids", ids, "INT64"),
        ("mask", ones, "INT64"),
        ("scale", np.ones((rows, 1), "f4"), "FP32"),
    ):
        message.inputs.add(name=name, datatype=kind, shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


@pytest.mark.parametrize(
    ("lengths", "bound"),
    [
        ((1, 2, 15, 16), 16),
        ((17, 24), 24),
        ((25, 32), 32),
        ((33, 48), 48),
        ((49, 64), 64),
        ((65, 96), 96),
        ((97, 128), 128),
    ],
)
def test_lengths_fall_into_buckets(lengths, bound):
    assert [bucket(length) for length in lengths] == [bound] * len(lengths)


def test_no_more_than_a_third_of_a_row_is_padding_beyond_the_shortest():
    for length in range(17, 5000):
        assert length <= bucket(length) < 1.5 * length


def test_what_has_the_axis_is_padded_and_what_may_have_it_is_cut():
    assert Padding(1, {"ids": 7, "mask": 0.0}, frozenset({"TOKENS"})) == PADDING


@pytest.mark.parametrize(
    ("axis", "mask", "values", "words"),
    [
        (2, "mask", {}, "mask: expected an input whose axis 2 has any size, got 'mask'"),
        (1, "scale", {}, "mask: expected an input whose axis 1 has any size, got 'scale'"),
        (1, "other", {}, "got 'other'"),
        (1, "mask", {"scale": 1}, "values: expected some of ids, got scale"),
        (1, "mask", {"mask": 1}, "values: expected some of ids, got mask"),
    ],
)
def test_a_model_that_cannot_be_padded_so_says_why(axis, mask, values, words):
    with pytest.raises(ValueError, match=words):
        padding_of(SPEC, axis, mask, values)


def test_strings_are_not_padded():
    with pytest.raises(ValueError, match="expected numbers along axis 1, but words is BYTES"):
        padding_of(spec_of(words=("BYTES", (-1,)), mask=("BOOL", (-1,))), 1, "mask", {})


def test_lengths_of_one_bucket_have_one_key_and_others_have_not():
    keys = [merge_key(request(1, length), SPEC, PADDING) for length in (17, 20, 24, 25)]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert merge_key(request(1, 17), SPEC) != merge_key(request(1, 20), SPEC)


def test_what_cannot_be_padded_has_the_key_of_its_shape():
    odd = request(1, 20, mask=19)
    bare = request(1, 20)
    del bare.inputs[1]
    del bare.raw_input_contents[1]
    for message in (odd, bare, request(1, 0)):
        assert PADDING.length_of(message) is None
        assert merge_key(message, SPEC, PADDING) == merge_key(message, SPEC)


def test_rows_are_padded_to_the_longest_with_what_was_said_and_the_mask_says_what_is_real():
    requests = [request(1, 2, first=10), request(2, 3, first=20)]
    merged = merge(requests, [1, 2], PADDING)
    ids, mask, scale = (
        np.frombuffer(raw, dtype="f4" if tensor.datatype == "FP32" else "i8").reshape(tuple(tensor.shape))
        for tensor, raw in zip(merged.inputs, merged.raw_input_contents, strict=True)
    )
    assert ids.tolist() == [[10, 11, 7], [20, 21, 22], [23, 24, 25]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert scale.tolist() == [[1.0]] * 3


def answer(rows: int, length: int) -> Any:
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    tokens = np.arange(rows * length * 2, dtype="f4").reshape(rows, length, 2)
    pooled = np.arange(rows * 3, dtype="f4").reshape(rows, 3)
    for name, array in (("TOKENS", tokens), ("POOLED", pooled)):
        response.outputs.add(name=name, datatype="FP32", shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response


def test_answers_are_cut_back_to_the_length_of_each():
    requests = [request(1, 2, id="a"), request(2, 3)]
    first, second = split(answer(3, 3), requests, [1, 2], PADDING)
    assert [list(tensor.shape) for tensor in first.outputs] == [[1, 2, 2], [1, 3]]
    assert [list(tensor.shape) for tensor in second.outputs] == [[2, 3, 2], [2, 3]]
    assert np.frombuffer(first.raw_output_contents[0], "f4").tolist() == [0, 1, 2, 3]
    assert np.frombuffer(second.raw_output_contents[0], "f4").tolist() == list(range(6, 18))
    assert (first.id, second.id) == ("a", "")


def test_an_answer_of_another_length_cannot_be_told_apart():
    with pytest.raises(SplitError, match="output TOKENS: expected 3 along axis 1 as in the inputs, got shape"):
        split(answer(3, 4), [request(1, 2), request(2, 3)], [1, 2], PADDING)


def test_equal_lengths_are_joined_as_they_are():
    assert unlike([request(1, 5), request(2, 5)], PADDING) is None
    assert unlike([request(1, 5), request(2, 6)], PADDING) is PADDING
    assert unlike([request(1, 5), request(2, 6)], None) is None


@pytest.mark.parametrize(("datatype", "dtype"), [("BOOL", "?"), ("FP16", "f2"), ("UINT8", "u1"), ("BF16", "<u2")])
def test_every_type_of_numbers_is_padded_on_an_inner_axis(datatype, dtype):
    spec = spec_of(x=(datatype, (2, -1)), mask=("BOOL", (2, -1)))
    padding = padding_of(spec, 2, "mask", {"x": 1})
    requests = []
    for length in (1, 2):
        message = service_pb2.ModelInferRequest(model_name="m")
        for name, kind, form in (("x", datatype, dtype), ("mask", "BOOL", "?")):
            message.inputs.add(name=name, datatype=kind, shape=[1, 2, length])
            message.raw_input_contents.append(np.zeros((1, 2, length), form).tobytes())
        requests.append(message)
    merged = merge(requests, [1, 1], padding)
    assert list(merged.inputs[0].shape) == [2, 2, 2]
    one = 0x3F80 if datatype == "BF16" else 1
    found = np.frombuffer(merged.raw_input_contents[0], dtype).reshape(2, 2, 2)
    assert found.astype("f8").tolist() == [[[0, one], [0, one]], [[0, 0], [0, 0]]]
