"""Arrays through a real server and back, with either client."""

import fairlane
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2 as pb

from tests.client.fake_kserve import Answer

NUMERIC = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
EVERY_ORDER = st.sampled_from(["<", ">"])

numeric_arrays = st.tuples(EVERY_ORDER, st.sampled_from(NUMERIC)).flatmap(
    lambda drawn: hnp.arrays(np.dtype(drawn[0] + drawn[1]), SHAPES)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
string_arrays = hnp.arrays(object, SHAPES, elements=texts | st.binary(max_size=12))


def as_bytes(element):
    return element.encode() if isinstance(element, str) else element


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(array=numeric_arrays)
def test_numeric_array_comes_back_bit_for_bit(client, array):
    back = client.infer("echo", {"x": array})["x"]
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=string_arrays)
def test_strings_come_back_as_their_bytes(client, array):
    back = client.infer("echo", {"x": array})["x"]
    assert back.shape == array.shape
    assert back.ravel().tolist() == [as_bytes(element) for element in array.ravel()]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays=st.dictionaries(st.text("abcdef", min_size=1), numeric_arrays | string_arrays, max_size=5))
def test_many_inputs_keep_their_names(client, arrays):
    outputs = client.infer("echo", arrays).outputs
    assert {name: array.shape for name, array in outputs.items()} == {k: v.shape for k, v in arrays.items()}


@pytest.mark.parametrize("value", [["a", "ü"], np.array(["a", "ü"]), np.array(["a", "ü"], np.dtypes.StringDType())])
def test_every_form_of_text_is_accepted(client, value):
    assert client.infer("echo", {"x": value})["x"].tolist() == [b"a", "ü".encode()]


def test_a_view_that_is_not_contiguous_is_sent_in_its_own_order(client):
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T[::-1]
    assert (client.infer("echo", {"x": array})["x"] == array).all()


def test_result_says_who_answered(client):
    result = client.infer("echo", {"x": [1]}, version="3", request_id="r-1")
    assert (result.model, result.version, result.request_id, result.attempts) == ("echo", "3", "r-1", 1)


def test_unknown_output_names_those_there_are(client):
    with pytest.raises(KeyError, match=r"no output 'y'; it gave \['x'\]"):
        client.infer("echo", {"x": [1]})["y"]


def test_answer_that_contradicts_itself_is_a_backend_error(client, server):
    response = pb.ModelInferResponse(model_name="m", raw_output_contents=[bytes(8)])
    response.outputs.add(name="y", datatype="FP32", shape=[3])
    server.play(Answer(response))
    with pytest.raises(fairlane.BackendError, match=r"output 'y': expected elements for shape \[3\]; got 2") as caught:
        client.infer("m", {})
    assert (caught.value.model, caught.value.attempts) == ("m", 1)


def test_answer_over_the_clients_own_limit_is_named(connect, server):
    server.play(Answer(pb.ModelInferResponse(raw_output_contents=[bytes(100)])))
    with pytest.raises(
        fairlane.MessageTooLarge, match=r"answer: .* 100 bytes \(max_message_bytes of this client\); got 1"
    ):
        connect(max_message_bytes=100).infer("m", {})


def test_answer_of_any_size_is_read(client, server):
    # As large as the old limits of gRPC and of this client would not let through.
    answer = pb.ModelInferResponse(raw_output_contents=[bytes(65 * 2**20)])
    answer.outputs.add(name="y", datatype="UINT8", shape=[65 * 2**20])
    server.play(Answer(answer))
    assert client.infer("m", {})["y"].nbytes == 65 * 2**20
