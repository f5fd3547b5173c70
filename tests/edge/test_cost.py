import logging

import pytest
from tritonclient.grpc import service_pb2

from scheduler.config import Config
from scheduler.edge.cost import MOST, Costs
from scheduler.triton.spec import ModelSpec, TensorSpec

SPEC = ModelSpec(
    "m", 8, 1, {name: TensorSpec(name, "INT64", (-1,), optional=True) for name in ("ids", "mask")}, True, ("1",)
)


def costs(cost: str | None) -> Costs:
    return Costs(Config.model_validate({"models": {"m": {"cost": cost}}}))


def request(shape: tuple[int, ...] = (4, 16), **parameters: float | str) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name="m")
    message.inputs.add(name="ids", datatype="INT64", shape=shape)
    for name, value in parameters.items():
        kind = {int: "int64_param", float: "double_param", str: "string_param", bool: "bool_param"}[type(value)]
        setattr(message.parameters[name], kind, value)
    return message


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        (None, request(), None),
        ("ids.size", request(), 64),
        ("ids.size", request((1, 2, 3)), 6),
        ("ids.size", request((1, 0)), None),
        ("mask.size", request(), None),
        ("parameters.max_tokens", request(max_tokens=200), 200),
        ("parameters.max_tokens", request(max_tokens=2.9), 2),
        ("parameters.max_tokens", request(max_tokens=1e300), MOST),
        ("parameters.max_tokens", request(max_tokens=0), None),
        ("parameters.max_tokens", request(max_tokens=-3), None),
        ("parameters.max_tokens", request(max_tokens=float("nan")), None),
        ("parameters.max_tokens", request(max_tokens=float("inf")), None),
        ("parameters.max_tokens", request(max_tokens="200"), None),
        ("parameters.max_tokens", request(max_tokens=True), None),
        ("parameters.max_tokens", request(other=200), None),
        ("parameters.a.size", request(**{"a.size": 3}), 3),
    ],
)
def test_the_cost_is_the_inputs_size_or_the_parameters_number(said, asked, expected):
    found = costs(said)
    assert found.of(asked, SPEC) == expected
    assert "max_tokens" not in asked.parameters or expected != 0


def test_looking_for_a_parameter_adds_none():
    asked = request()
    costs("parameters.max_tokens").of(asked, SPEC)
    assert not asked.parameters


def test_another_model_has_none():
    assert Costs(Config()).of(request(), SPEC) is None


def test_an_input_that_the_model_does_not_have_is_told_of_once_and_again_after_a_reload(caplog):
    found = costs("idz.size")
    with caplog.at_level(logging.WARNING):
        assert [found.of(request(), SPEC) for _ in range(3)] == [None] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "models.m.cost: expected one of its inputs ids, mask, got idz; no cost is told"
    ]
    found.configure(Config.model_validate({"models": {"m": {"cost": "ids.size"}}}))
    assert found.of(request(), SPEC) == 64


@pytest.mark.parametrize("said", ["", "ids", "ids.bytes", ".size", "parameters."])
def test_anything_else_is_refused_with_its_path(said):
    with pytest.raises(ValueError, match=r"models\.m\.cost"):
        costs(said)
