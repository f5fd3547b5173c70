from dataclasses import replace

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2

from scheduler.triton.joining import join_key, with_parts
from scheduler.triton.spec import ModelSpec, spec_from_config


def spec_of(text: str, **about: object) -> ModelSpec:
    config = text_format.Parse(f'name: "m" {text}', model_config_pb2.ModelConfig())
    return replace(spec_from_config(config, ("1",)), **about)


def request(*shape: int, name: str = "IN") -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name="m")
    message.inputs.add(name=name, datatype="FP32", shape=shape)
    return message


BATCHED = 'max_batch_size: 8 dynamic_batching {} input { name: "IN" data_type: TYPE_FP32 dims: [-1] }'


def test_requests_of_one_shape_are_run_as_one_whatever_else_they_say() -> None:
    spec, odd = spec_of(BATCHED), request(3, 4)
    odd.parameters["threshold"].int64_param = 5
    odd.outputs.add(name="OUT").parameters["classification"].int64_param = 2
    assert join_key(odd, spec) == join_key(request(1, 4), spec) is not None


def test_another_shape_input_or_version_is_not() -> None:
    spec, other = spec_of(BATCHED), request(1, 4)
    other.model_version = "2"
    keys = {join_key(each, spec) for each in (request(1, 4), request(1, 5), request(1, 4, name="B"), other)}
    assert len(keys) == 4


def test_a_ragged_input_may_have_any_shape() -> None:
    spec = spec_of(BATCHED.replace("dims: [-1]", "dims: [-1] allow_ragged_batch: true"))
    assert join_key(request(1, 4), spec) == join_key(request(1, 5), spec) is not None


def test_who_joins() -> None:
    assert spec_of("max_batch_size: 8 sequence_batching { direct {} }").joins
    for text in (
        "max_batch_size: 8",
        "dynamic_batching {}",
        "max_batch_size: 8 dynamic_batching {} model_transaction_policy { decoupled: true }",
    ):
        assert not spec_of(text).joins
        assert join_key(request(1), spec_of(text)) is None


def test_what_a_queue_delay_waits_for() -> None:
    delay = "max_queue_delay_microseconds: 100000"
    assert spec_of(BATCHED).capacity.delayed_below == 0
    delayed = spec_of(f"max_batch_size: 8 dynamic_batching {{ {delay} }}").capacity
    assert (delayed.delayed_below, delayed.queue_delay_s) == (8, 0.1)
    preferring = spec_of(f"max_batch_size: 8 dynamic_batching {{ {delay} preferred_batch_size: [6, 4] }}")
    assert preferring.capacity.delayed_below == 4


def ensemble(*parts: str) -> ModelSpec:
    steps = " ".join(f'step {{ model_name: "{part}" model_version: -1 }}' for part in parts)
    return spec_of(f"max_batch_size: 8 ensemble_scheduling {{ {steps} }}")


def test_an_ensemble_has_the_instances_of_its_parts_and_joins_where_all_of_them_do() -> None:
    plain, two = spec_of(BATCHED), spec_of(f"{BATCHED} instance_group {{ count: 2 }}")
    serial = spec_of("max_batch_size: 0")
    specs = {"a": plain, "b": two, "s": serial, "ab": ensemble("a", "b"), "as": ensemble("a", "s")}
    specs["nested"] = ensemble("ab", "b")
    found = with_parts(specs)
    assert {name: (each.instances, each.joins) for name, each in found.items()} == {
        "a": (1, True),
        "b": (2, True),
        "s": (1, False),
        "ab": (3, True),
        "as": (2, False),
        "nested": (5, True),
    }


def test_parts_that_are_not_loaded_are_left_out_and_circles_end() -> None:
    specs = {"alone": ensemble("gone"), "circle": ensemble("circle")}
    assert {name: each.instances for name, each in with_parts(specs).items()} == {"alone": 1, "circle": 1}
