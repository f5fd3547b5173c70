"""Answers that agree but for rounding, and answers that do not."""

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from scheduler.triton.compare import Tolerance, difference

STRICT = Tolerance(0.05, 0.0)
LOOSE = Tolerance(0.5, 0.5)
RANDOM = np.random.default_rng(0)


def answer(*arrays: Any, datatype: str | None = None, **parameters: int) -> Any:
    response = service_pb2.ModelInferResponse(model_name="m")
    for place, array in enumerate(arrays):
        kind = datatype or {"f": "FP", "i": "INT", "b": "BOOL", "O": "BYTES"}[array.dtype.kind]
        kind += str(8 * array.dtype.itemsize) if kind in {"FP", "INT"} else ""
        response.outputs.add(name=f"Y{place}", datatype=kind, shape=array.shape)
        raw = serialize_byte_tensor(array).item() if kind == "BYTES" else array.tobytes()
        response.raw_output_contents.append(raw)
    for name, value in parameters.items():
        response.parameters[name].int64_param = value
    return response


def values(*shape: int, scale: float = 1.0, dtype: str = "f4") -> Any:
    return (scale * RANDOM.normal(size=shape)).astype(dtype)


def test_equal_bytes_agree():
    one = answer(values(2, 3), np.array([[1], [2]], dtype="i4"), values(2, 0))
    assert difference(one, one, [], STRICT) is None


@pytest.mark.parametrize(("dtype", "noise"), [("f4", 1e-6), ("f8", 1e-6), ("f2", 1e-3)])
def test_rounding_agrees_and_rows_of_others_do_not(dtype, noise):
    alone, others = values(2, 5, dtype=dtype), [answer(values(2, 5, dtype=dtype)) for _ in range(4)]
    rounded = (alone * (1 + noise)).astype(dtype)
    assert difference(answer(rounded), answer(alone), others, STRICT) is None
    assert "off by" in difference(others[0], answer(alone), others, LOOSE)


def test_bf16_is_compared_as_numbers():
    alone = np.array([[1.0, -2.0, 3.0]], dtype="f4").view("<u2")[:, 1::2].copy()
    near = np.array([[1.0079, -2.0, 3.0]], dtype="f4").view("<u2")[:, 1::2].copy()
    far = np.array([[3.0, -2.0, 1.0]], dtype="f4").view("<u2")[:, 1::2].copy()
    assert difference(answer(near, datatype="BF16"), answer(alone, datatype="BF16"), [], STRICT) is None
    assert difference(answer(far, datatype="BF16"), answer(alone, datatype="BF16"), [], LOOSE) is not None


def test_scores_are_not_hidden_by_boxes():
    boxes, scores = values(1, 50, 4, scale=300), RANDOM.uniform(size=(1, 50, 1)).astype("f4")
    one = answer(np.concatenate([boxes, scores], axis=2))
    other = answer(np.concatenate([boxes, 1 - scores], axis=2))
    assert difference(one, other, [], LOOSE).startswith("output Y0, index 4 of axis 2, is off by")


def test_one_row_of_many_is_not_hidden_by_the_others():
    alone = values(40, 3)
    mixed = alone.copy()
    mixed[7] = -2 * mixed[7]
    assert ", index 7 of axis 0, is off by" in difference(answer(mixed), answer(alone), [], LOOSE)


def test_every_output_counts():
    first = values(2, 3)
    words = difference(answer(first, values(2, 3)), answer(first, values(2, 3)), [], LOOSE)
    assert words.startswith("output Y1 ")


def test_noise_about_nothing_beside_large_numbers_agrees():
    large, noise, other_noise = values(4, 8), values(4, 1, scale=1e-8), values(4, 1, scale=1e-8)
    one, other = (answer(np.concatenate([large, each], axis=1)) for each in (noise, other_noise))
    assert difference(one, other, [], STRICT) is None


def test_a_value_that_is_the_same_in_all_answers_may_be_rounded():
    constant = np.full((3, 2), 5.0, dtype="f4")
    assert difference(answer(constant + 1e-4), answer(constant), [], STRICT) is None
    assert difference(answer(constant + 0.1), answer(constant), [], STRICT) is not None


def test_what_is_no_number_is_so_in_the_same_places():
    alone = np.array([[1.0, np.nan, np.inf, -np.inf]], dtype="f4")
    near = alone + np.float32(1e-7)
    assert difference(answer(near), answer(alone), [], STRICT) is None
    assert "infinite or not a number" in difference(answer(near[:, ::-1].copy()), answer(alone), [], LOOSE)


@pytest.mark.parametrize(("changed", "strict", "loose"), [(0, None, None), (1, "10%", None), (6, "60%", "60%")])
@pytest.mark.parametrize("kind", ["i4", "?", "O"])
def test_choices_are_the_same_or_not(kind, changed, strict, loose):
    alone = np.array([[b"a"] * 10], dtype=object) if kind == "O" else np.zeros((1, 10), dtype=kind)
    other = alone.copy()
    other[0, :changed] = b"bc" if kind == "O" else 1
    for tolerance, expected in ((STRICT, strict), (LOOSE, loose)):
        words = difference(answer(other), answer(alone), [], tolerance)
        assert words is None if expected is None else expected in words


def test_strings_that_are_more_or_fewer_differ():
    one = answer(np.array([[b"a", b"b"]], dtype=object))
    other = answer(np.array([[b"a", b"b"]], dtype=object))
    other.raw_output_contents[0] += b"\x01\0\0\0c"
    assert difference(one, other, [], LOOSE) is not None


def test_other_shapes_and_parameters_differ():
    one = values(2, 3)
    assert "are" in difference(answer(one), answer(one[:, :2].copy()), [], LOOSE)
    assert "parameters" in difference(answer(one, n=1), answer(one, n=2), [], LOOSE)


def test_answers_of_other_shapes_tell_nothing_of_the_spread():
    alone = values(1, 3, scale=1e-3)
    assert difference(answer(-alone), answer(alone), [answer(values(1, 4, scale=1e6))], LOOSE) is not None
    assert difference(answer(-alone), answer(alone), [answer(values(1, 3, scale=1e6))], LOOSE) is None
