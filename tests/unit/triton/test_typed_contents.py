"""Typed contents become the bytes that Triton makes of them, or stay as they came."""

import struct
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from scheduler.triton.spec import ModelSpec, TensorSpec
from scheduler.triton.typed_contents import FIELDS, MAX_INTEGERS, MAX_STRINGS, make_raw


def spec_of(*datatypes: str, max_batch_size: int = 8) -> ModelSpec:
    inputs = {f"X{n}": TensorSpec(f"X{n}", datatype, (-1,), optional=False) for n, datatype in enumerate(datatypes)}
    return ModelSpec("m", max_batch_size, 1, inputs, mergeable=True, versions=("1",))


def typed(datatype: str, values: Any, shape: list[int] | None = None, field: str | None = None) -> Any:
    message = service_pb2.ModelInferRequest(model_name="m")
    add(message, "X0", datatype, values, shape, field)
    return message


def add(
    message: Any, name: str, datatype: str, values: Any, shape: list[int] | None = None, field: str | None = None
) -> None:
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape or [1, len(values)])
    tensor.contents.SetInParent()
    getattr(tensor.contents, field or FIELDS[datatype]).extend(values)


@pytest.mark.parametrize("datatype", [name for name in FIELDS if name not in {"BOOL", "BYTES", "FP32", "FP64"}])
@pytest.mark.parametrize("length", [1, 7, 300])
def test_integers_of_every_size_are_those_of_numpy(datatype: str, length: int) -> None:
    info = np.iinfo(datatype.lower())
    edges = [info.min, info.max, 0, 1, 127 % (info.max + 1), info.max // 2, info.min // 2]
    values = np.resize(np.array(edges, dtype=datatype.lower()), length)
    message = typed(datatype, values.tolist())
    assert make_raw(message, spec_of(datatype))
    assert list(message.raw_input_contents) == [values.tobytes()]
    assert not message.inputs[0].HasField("contents")


@pytest.mark.parametrize(
    ("datatype", "values", "raw"),
    [
        # As Triton 24.10 answers them: the lowest bytes count.
        ("INT8", [300, -1], b"\x2c\xff"),
        ("INT16", [70000, -1], b"\x70\x11\xff\xff"),
        ("UINT8", [300, 2**32 - 1], b"\x2c\xff"),
        ("INT32", [-1, -(2**31)], b"\xff\xff\xff\xff\x00\x00\x00\x80"),
        ("UINT64", [2**64 - 1], b"\xff" * 8),
        ("BOOL", [True, False, True], b"\x01\x00\x01"),
        ("FP32", [1.5, float("nan")], struct.pack("<f", 1.5) + b"\x00\x00\xc0\x7f"),
        ("FP64", [1.5, -0.0], struct.pack("<2d", 1.5, -0.0)),
        ("BYTES", [b"a", b"\xff\x00"], b"\x01\0\0\0a\x02\0\0\0\xff\x00"),
    ],
)
def test_contents_become_what_triton_makes_of_them(datatype: str, values: list[Any], raw: bytes) -> None:
    message = typed(datatype, values)
    assert make_raw(message, spec_of(datatype))
    assert list(message.raw_input_contents) == [raw]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "BOOL", "INT32"])
def test_large_contents_become_raw(datatype: str) -> None:
    values = (np.arange(100_000) % 200 > 99) if datatype == "BOOL" else np.arange(100_000, dtype="float64")
    dtype = {"FP32": "f4", "FP64": "f8", "BOOL": "?", "INT32": "i4"}[datatype]
    message = typed(datatype, values.astype(dtype).tolist(), shape=[4, 25_000])
    assert make_raw(message, spec_of(datatype))
    assert message.raw_input_contents[0] == values.astype(dtype).tobytes()


def test_all_inputs_become_raw_or_none() -> None:
    spec = spec_of("FP32", "INT64")
    message = typed("FP32", [1.0, 2.0])
    add(message, "X1", "INT64", [5])
    assert make_raw(message, spec)
    assert list(message.raw_input_contents) == [struct.pack("<2f", 1.0, 2.0), struct.pack("<q", 5)]
    half = typed("FP32", [1.0, 2.0])
    half.inputs.add(name="X1", datatype="INT64", shape=[1, 1])
    before = half.SerializeToString()
    assert not make_raw(half, spec)
    assert half.SerializeToString() == before


def no_columns(datatype: str) -> Any:
    return typed(datatype, [], shape=[1, 0])


@pytest.mark.parametrize("datatype", ["FP32", "INT8", "BYTES"])
def test_no_elements_are_no_bytes(datatype: str) -> None:
    message = no_columns(datatype)
    assert make_raw(message, spec_of(datatype))
    assert list(message.raw_input_contents) == [b""]


def two_fields() -> Any:
    message = typed("FP32", [1.0, 2.0])
    message.inputs[0].contents.int_contents.extend([1, 2])
    return message


def with_raw(message: Any) -> Any:
    message.raw_input_contents.append(bytes(8))
    return message


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(typed("FP32", [1.0], shape=[1, 2]), id="too few"),
        pytest.param(typed("FP32", [1.0] * 3, shape=[1, 2]), id="too many"),
        pytest.param(typed("FP32", [], shape=[1, 2]), id="none"),
        pytest.param(typed("FP32", [1.0, 2.0], field="fp64_contents"), id="of another type"),
        pytest.param(two_fields(), id="twice"),
        pytest.param(with_raw(typed("FP32", [1.0, 2.0])), id="raw as well"),
        pytest.param(typed("FP32", [1.0, 2.0], shape=[2]), id="too few dimensions"),
        pytest.param(typed("FP32", [1.0, 2.0], shape=[-1, -2]), id="negative dimensions"),
        pytest.param(typed("FP32", [1.0, 2.0], shape=[2**62] * 1000), id="a thousand dimensions"),
        pytest.param(typed("FP64", [1.0, 2.0]), id="not the model's type"),
        pytest.param(service_pb2.ModelInferRequest(model_name="m"), id="no inputs"),
    ],
)
def test_what_does_not_fit_stays_as_it_came(message: Any) -> None:
    before = message.SerializeToString()
    assert not make_raw(message, spec_of("FP32"))
    assert message.SerializeToString() == before


def test_half_floats_have_no_typed_contents() -> None:
    assert not make_raw(typed("FP16", [1.0], field="fp32_contents"), spec_of("FP16"))


def test_further_inputs_and_unknown_ones_stay_as_they_came() -> None:
    further = typed("FP32", [1.0])
    add(further, "X1", "FP32", [1.0])
    assert not make_raw(further, spec_of("FP32"))
    unknown = typed("FP32", [1.0])
    unknown.inputs[0].name = "other"
    assert not make_raw(unknown, spec_of("FP32"))


@pytest.mark.parametrize(
    ("datatype", "value", "most"), [("BYTES", b"", MAX_STRINGS), ("INT32", 1, MAX_INTEGERS)], ids=["strings", "ints"]
)
def test_too_much_for_one_turn_of_the_loop_stays_as_it_came(datatype: str, value: Any, most: int) -> None:
    assert make_raw(typed(datatype, [value] * most), spec_of(datatype))
    assert not make_raw(typed(datatype, [value] * (most + 1)), spec_of(datatype))


def test_a_model_without_a_batch_dimension_has_its_own_shape() -> None:
    message = typed("FP32", [1.0], shape=[1])
    assert make_raw(message, spec_of("FP32", max_batch_size=0))
