"""The wire form of tensors, against bytes written by hand."""

import fairlane
import ml_dtypes
import numpy as np
import pytest
from fairlane import tensor
from tritonclient.grpc import service_pb2 as pb


def response(datatype, shape, raw=None, **typed):
    made = pb.ModelInferResponse()
    made.outputs.add(name="y", datatype=datatype, shape=shape, contents=pb.InferTensorContents(**typed))
    if raw is not None:
        made.raw_output_contents.append(raw)
    return made


def test_bytes_are_length_prefixed_little_endian():
    described, raw = tensor.encode("x", np.array([b"ab", b""], object))
    assert (described.datatype, list(described.shape)) == ("BYTES", [2])
    assert raw == b"\x02\x00\x00\x00ab\x00\x00\x00\x00"


def test_numbers_are_little_endian_whatever_the_array_is():
    described, raw = tensor.encode("x", np.array([[1, 256]], ">u2"))
    assert (described.datatype, list(described.shape), raw) == ("UINT16", [1, 2], b"\x01\x00\x00\x01")


@pytest.mark.parametrize("dtype", [np.complex64, "datetime64[s]", [("a", "i4")], np.longdouble])
def test_unsupported_dtype_is_named_with_the_supported(dtype):
    with pytest.raises(fairlane.InvalidRequest, match=r"input 'x': expected bool, int8-64.*; got dtype "):
        tensor.encode("x", np.zeros(2, dtype))


def test_bfloat16_goes_out_and_comes_back_bit_by_bit():
    # 1.5 is 0x3FC0 in BF16, -2 is 0xC000
    described, raw = tensor.encode("x", np.array([[1.5, -2]], ml_dtypes.bfloat16))
    assert (described.datatype, list(described.shape), raw) == ("BF16", [1, 2], b"\xc0\x3f\x00\xc0")
    array = tensor.decode(response("BF16", [1, 2], raw))["y"]
    assert array.dtype == ml_dtypes.bfloat16
    assert array.tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize("kind", [ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_types_that_triton_has_not_are_refused_by_name(kind):
    with pytest.raises(fairlane.InvalidRequest, match=f"got dtype {np.dtype(kind)}"):
        tensor.encode("x", np.zeros(2, kind))


def test_ragged_list_is_refused():
    with pytest.raises(fairlane.InvalidRequest, match="input 'x': expected an array"):
        tensor.encode("x", [[1], [2, 3]])


def test_object_that_is_no_text_is_refused_with_its_place():
    with pytest.raises(fairlane.InvalidRequest, match="got NoneType at 1"):
        tensor.encode("x", np.array(["a", None], object))


def test_text_that_utf8_can_not_hold_is_refused_with_its_place():
    with pytest.raises(fairlane.InvalidRequest, match="got surrogates not allowed at 1"):
        tensor.encode("x", np.array(["a", "\ud800"], object))


@pytest.mark.parametrize(
    ("datatype", "contents", "expected"),
    [
        ("BOOL", {"bool_contents": [True, False]}, np.array([True, False])),
        ("INT8", {"int_contents": [-1, 2]}, np.array([-1, 2], np.int8)),
        ("INT16", {"int_contents": [-1, 2]}, np.array([-1, 2], np.int16)),
        ("INT32", {"int_contents": [-1, 2]}, np.array([-1, 2], np.int32)),
        ("INT64", {"int64_contents": [-1, 2]}, np.array([-1, 2], np.int64)),
        ("UINT8", {"uint_contents": [1, 2]}, np.array([1, 2], np.uint8)),
        ("UINT16", {"uint_contents": [1, 2]}, np.array([1, 2], np.uint16)),
        ("UINT32", {"uint_contents": [1, 2]}, np.array([1, 2], np.uint32)),
        ("UINT64", {"uint64_contents": [1, 2**63]}, np.array([1, 2**63], np.uint64)),
        ("FP32", {"fp32_contents": [0.5, -2]}, np.array([0.5, -2], np.float32)),
        ("FP64", {"fp64_contents": [0.1, -2]}, np.array([0.1, -2], np.float64)),
        ("BYTES", {"bytes_contents": [b"a", b""]}, np.array([b"a", b""], object)),
    ],
)
def test_typed_contents_are_read(datatype, contents, expected):
    array = tensor.decode(response(datatype, [2, 1], **contents))["y"]
    assert array.dtype == expected.dtype
    assert array.tolist() == expected.reshape(2, 1).tolist()


@pytest.mark.parametrize(
    "answer",
    [response("INT32", [2], bytes(8)), response("BYTES", [1], b"\x01\x00\x00\x00a"), response("BOOL", [0])],
)
def test_outputs_are_read_only(answer):
    assert not tensor.decode(answer)["y"].flags.writeable


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response("FP32", [2], bytes(7)), "expected whole FP32 elements; got 7 bytes"),
        (response("FP32", [-1], bytes(4)), r"expected elements for shape \[-1\]"),
        (response("FP8", [1], bytes(1)), "got 'FP8'"),
        (response("FP16", [1]), "expected raw contents for 'FP16'; got none"),
        (response("BF16", [1]), "expected raw contents for 'BF16'; got none"),
        (response("INT32", [2], None, int_contents=[1]), r"expected elements for shape \[2\]; got 1"),
        (response("BYTES", [1], b"\x05\x00\x00\x00ab"), "to end by byte 6; it ends at 9"),
        (response("BYTES", [1], b"\x05\x00"), "to end by byte 2; it ends at 4"),
    ],
)
def test_malformed_output_is_a_backend_error(answer, message):
    with pytest.raises(fairlane.BackendError, match=message):
        tensor.decode(answer)
