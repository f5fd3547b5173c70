"""What may be merged, and how an answer is split."""

from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from scheduler.triton.merge import SplitError, merge, merge_key, split
from scheduler.triton.spec import ModelSpec, TensorSpec

SPEC = ModelSpec("m", 8, 1, {"X": TensorSpec("X", "BYTES", (-1,), optional=False)}, mergeable=True, versions=("1",))


def request(*rows: list[bytes], **about: Any) -> Any:
    message = service_pb2.ModelInferRequest(model_name="m", **about)
    message.inputs.add(name="X", datatype="BYTES", shape=[len(rows), len(rows[0])])
    message.raw_input_contents.append(b"".join(len(word).to_bytes(4, "little") + word for row in rows for word in row))
    return message


def answer_to(message: Any) -> Any:
    """OUT is X."""
    answer = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    answer.outputs.add(name="OUT", datatype="BYTES", shape=message.inputs[0].shape)
    answer.raw_output_contents.append(message.raw_input_contents[0])
    return answer


def test_strings_come_back_to_those_who_sent_them():
    requests = [request([b"a", b""]), request([b"bc", b"d"], [b"", b"efg"])]
    parts = split(answer_to(merge(requests, [1, 2])), requests, [1, 2])
    assert [part.raw_output_contents[0] for part in parts] == [each.raw_input_contents[0] for each in requests]
    assert [list(part.outputs[0].shape) for part in parts] == [[1, 2], [2, 2]]


def test_names_that_hold_a_separator_do_not_make_keys_equal():
    one, two = request([b"a"]), request([b"a"])
    one.outputs.add(name="x|>y")
    two.outputs.add(name="x")
    two.outputs.add(name="y")
    assert merge_key(one, SPEC) != merge_key(two, SPEC)


def with_parameters(**values: Any) -> Any:
    """KIND_NAME=value: `double_temperature=0.5`."""
    message = request([b"a"])
    for name, value in values.items():
        kind, _, key = name.partition("_")
        setattr(message.parameters[key], f"{kind}_param", value)
    return message


def test_own_parameters_do_not_keep_requests_apart():
    assert merge_key(with_parameters(int64_priority=2, int64_timeout=5), SPEC) == merge_key(request([b"a"]), SPEC)


def test_equal_parameters_ride_together_in_any_order():
    one = with_parameters(double_temperature=0.5, string_colour="blue", int64_priority=1)
    other = with_parameters(string_colour="blue", double_temperature=0.5)
    assert merge_key(one, SPEC) == merge_key(other, SPEC) is not None


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"double_temperature": 0.25},
        {"double_temperature": 0.5, "bool_greedy": True},
        {"double_temperatures": 0.5},
        {"string_temperature": "0.5"},
    ],
)
def test_other_parameters_ride_apart(other: dict[str, Any]):
    assert merge_key(with_parameters(double_temperature=0.5), SPEC) != merge_key(with_parameters(**other), SPEC)


def test_a_number_of_one_kind_is_not_one_of_another():
    assert merge_key(with_parameters(int64_n=1), SPEC) != merge_key(with_parameters(uint64_n=1), SPEC)
    assert merge_key(with_parameters(int64_n=1), SPEC) != merge_key(with_parameters(bool_n=True), SPEC)


def test_a_parameter_whose_value_looks_like_a_further_one_rides_apart():
    one, two = with_parameters(string_a="x", string_b="y"), with_parameters(string_a="x'), ('b', b'y")
    assert merge_key(one, SPEC) != merge_key(two, SPEC)


@pytest.mark.parametrize(
    "values",
    [{"int64_sequence_id": 5}, {"bool_sequence_start": True}, {"bool_triton_x": True}, {"string_long": "x" * 1025}],
)
def test_what_triton_reads_itself_and_what_is_long_rides_alone(values: dict[str, Any]):
    assert merge_key(with_parameters(**values), SPEC) is None


def test_a_merged_request_carries_the_parameters_of_all_in_it_but_those_of_fairlane():
    requests = [with_parameters(double_temperature=0.5, int64_priority=n, int64_timeout=n) for n in (1, 2)]
    merged = merge(requests, [1, 1])
    assert {name: value.double_param for name, value in merged.parameters.items()} == {"temperature": 0.5}


def test_typed_contents_ride_alone_also_beside_raw_ones():
    message = request([b"a"])
    message.inputs[0].contents.bytes_contents.append(b"a")
    assert merge_key(message, SPEC) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: answer.outputs[0].shape.__setitem__(0, 2),
        lambda answer: answer.raw_output_contents.__setitem__(0, answer.raw_output_contents[0][:-1]),
        lambda answer: answer.raw_output_contents.__setitem__(0, answer.raw_output_contents[0] + b"x"),
        lambda answer: answer.raw_output_contents.append(b""),
    ],
)
def test_answer_that_cannot_be_split_says_so(spoil: Any):
    requests = [request([b"a"]), request([b"b"]), request([b"c"])]
    answer = answer_to(merge(requests, [1, 1, 1]))
    spoil(answer)
    with pytest.raises(SplitError):
        split(answer, requests, [1, 1, 1])


def test_an_answer_without_outputs_is_one_without_outputs_for_each():
    answer = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    parts = split(answer, [request([b"a"], id="x"), request([b"b"])], [1, 1])
    assert [(part.id, len(part.outputs)) for part in parts] == [("x", 0), ("", 0)]


def test_every_rider_gets_the_parameters_of_the_answer():
    requests = [request([b"a"]), request([b"b"])]
    answer = answer_to(merge(requests, [1, 1]))
    answer.parameters["variant"].string_param = "small"
    answer.outputs[0].parameters["scale"].double_param = 0.5
    for part in split(answer, requests, [1, 1]):
        assert part.parameters["variant"].string_param == "small"
        assert part.outputs[0].parameters["scale"].double_param == 0.5
