"""What is remembered of a shape never changes what is found of a request."""

from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from scheduler.edge import shape
from scheduler.edge.shape import Shapes
from scheduler.edge.validate import check
from scheduler.errors import RequestError
from scheduler.triton.merge import merge_key
from scheduler.triton.spec import ModelSpec, TensorSpec


def spec_of(datatype: str = "INT32", max_batch_size: int = 8) -> ModelSpec:
    inputs = {"X": TensorSpec("X", datatype, (2,), optional=False)}
    return ModelSpec("m", max_batch_size, 1, inputs, mergeable=True, versions=("1",), outputs={"Y": "FP32"})


SPEC = spec_of()


def request(rows: int = 1, contents: bytes | None = None, datatype: str = "INT32", **about: Any) -> Any:
    message = service_pb2.ModelInferRequest(model_name="m", **about)
    message.inputs.add(name="X", datatype=datatype, shape=[rows, 2])
    message.raw_input_contents.append(bytes(8 * rows) if contents is None else contents)
    return message


def strings(*words: bytes) -> bytes:
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


def test_a_remembered_shape_is_what_a_check_finds() -> None:
    shapes = Shapes()
    for rows in (1, 3, 1, 3):
        message = request(rows, id=str(rows))
        message.parameters["priority"].int64_param = rows
        found = shapes.of(message, SPEC, message.ByteSize())
        key = merge_key(message, SPEC)
        assert found == (check(message, SPEC).rows, key, None, key, None)


def test_requests_that_triton_runs_as_one_take_the_time_of_one_run_whatever_their_parameters() -> None:
    shapes, spec = Shapes(), replace(SPEC, joins=True)
    one, other = request(), request()
    other.parameters["threshold"].int64_param = 3
    found = [shapes.of(message, spec, message.ByteSize()) for message in (one, other)]
    assert found[0].merge_key != found[1].merge_key
    assert found[0].latency_key == found[1].latency_key == found[0].join_key


def test_parameters_do_not_change_what_a_shape_takes_where_nothing_joins() -> None:
    shapes, other = Shapes(), request()
    other.parameters["threshold"].int64_param = 3
    assert shapes.of(other, SPEC, other.ByteSize()).latency_key == merge_key(request(), SPEC)


def test_an_equal_request_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = Shapes()
    shapes.of(request(), SPEC, request().ByteSize())
    monkeypatch.setattr(shape, "check", None)
    assert shapes.of(request(id="other"), SPEC, request(id="other").ByteSize()).rows == 1


@pytest.mark.parametrize("contents", [bytes(7), bytes(9), b""])
def test_contents_of_the_wrong_length_are_found_behind_a_remembered_shape(contents: bytes) -> None:
    shapes = Shapes()
    shapes.of(request(), SPEC, request().ByteSize())
    spoilt = request(contents=contents)
    with pytest.raises(RequestError, match=f"expected 8 bytes .* got {len(contents)}"):
        shapes.of(spoilt, SPEC, spoilt.ByteSize())


def test_missing_and_further_contents_are_found_behind_a_remembered_shape() -> None:
    shapes = Shapes()
    shapes.of(request(), SPEC, request().ByteSize())
    further = request()
    further.raw_input_contents.append(b"")
    with pytest.raises(RequestError, match="expected raw contents for 1 inputs, got 2"):
        shapes.of(further, SPEC, further.ByteSize())
    typed = request()
    del typed.raw_input_contents[:]
    assert shapes.of(typed, SPEC, typed.ByteSize()).merge_key is None


def test_a_parameter_of_the_model_makes_another_shape() -> None:
    shapes = Shapes()
    odd = request()
    odd.parameters["temperature"].double_param = 0.5
    for message in (request(), odd, request(), odd):
        assert shapes.of(message, SPEC, message.ByteSize()).merge_key == merge_key(message, SPEC)


def test_parameters_that_all_differ_take_no_places() -> None:
    shapes = Shapes()
    for seed in range(20):
        message = request()
        message.parameters["seed"].int64_param = seed
        assert shapes.of(message, SPEC, message.ByteSize()).merge_key == merge_key(message, SPEC)
    assert len(shapes._remembered) == 1


def test_a_model_that_was_loaded_anew_is_checked_anew() -> None:
    shapes = Shapes()
    shapes.of(request(4), SPEC, request(4).ByteSize())
    with pytest.raises(RequestError, match="expected a batch of 1 to 2, got 4"):
        shapes.of(request(4), spec_of(max_batch_size=2), request(4).ByteSize())


def test_strings_are_walked_through_every_time() -> None:
    shapes, spec = Shapes(), spec_of("BYTES")
    good = request(contents=strings(b"a", b"bc"), datatype="BYTES")
    shapes.of(good, spec, good.ByteSize())
    spoilt = request(contents=strings(b"a", b"bc")[:-1] + b"", datatype="BYTES")
    with pytest.raises(RequestError, match="end within element 1"):
        shapes.of(spoilt, spec, spoilt.ByteSize())
    swapped = request(contents=b"\x09" + strings(b"a", b"bc")[1:], datatype="BYTES")
    with pytest.raises(RequestError, match="end within element 0"):
        shapes.of(swapped, spec, swapped.ByteSize())


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape, "MAX_SHAPES", 3)
    shapes = Shapes()
    for rows in (1, 2, 3, 4, 5):
        shapes.of(request(rows), SPEC, request(rows).ByteSize())
        assert len(shapes._remembered) <= 3


def test_a_large_description_is_not_remembered() -> None:
    shapes = Shapes()
    large = request()
    large.inputs[0].contents.int_contents.extend(range(shape.DESCRIPTION_BYTES))
    shapes.of(large, SPEC, large.ByteSize())
    assert not shapes._remembered
