"""The kinds bench: its requests, what it makes of figures, and one short run against the real server."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from rich.console import Console
from tritonclient.grpc import model_config_pb2, service_pb2

from bench.kinds.callers import LoadResult
from bench.kinds.kind import KINDS, make_repository
from bench.kinds.measure import KindResult, Plan, measure
from bench.terminal.progress import RunProgress

BY_NAME = {kind.name: kind for kind in KINDS}


def test_every_kind_asks_a_model_of_the_repository(tmp_path: Path) -> None:
    make_repository(tmp_path)
    for kind in KINDS:
        message = service_pb2.ModelInferRequest.FromString(kind.request(3, 0))
        config = text_format.Parse((tmp_path / kind.model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        assert message.model_name == kind.model == config.name
        assert [tensor.name for tensor in message.inputs] == [tensor.name for tensor in config.input]
        assert config.model_transaction_policy.decoupled == kind.streamed


def test_callers_of_parameters_ragged_lengths_and_sequences_differ() -> None:
    for name in ("parameters", "ragged", "sequences"):
        request = BY_NAME[name].request
        assert request(1, 0) != request(2, 0)
    steps = [service_pb2.ModelInferRequest.FromString(BY_NAME["sequences"].request(1, number)) for number in (0, 1)]
    assert [step.parameters["sequence_start"].bool_param for step in steps] == [True, False]


def found(background: float, flooded_ms: float, **errors: int) -> KindResult:
    one = KindResult(BY_NAME["plain"], direct=[100.0, 200.0], background=[background, 2 * background])
    one.interactive = [100.0, 200.0]
    one.alone_ms, one.flooded_ms, one.errors = [10.0] * 100, [flooded_ms] * 100, errors
    return one


@pytest.mark.parametrize(
    ("one", "passed"),
    [
        (found(90.0, 30.0), True),
        (found(89.0, 30.0), False),
        (found(90.0, 30.5), False),
        (found(90.0, 30.0, UNAVAILABLE=1), False),
    ],
)
def test_what_is_asked_of_a_kind(one: KindResult, passed: bool) -> None:
    assert one.passed is passed
    assert one.facts()["background_to_direct"] == pytest.approx(one.background[0] / 100)


def test_a_rate_is_of_the_answers_in_time() -> None:
    assert LoadResult(answers=50, seconds=2.0).per_s == 25.0
    assert LoadResult().per_s == 0.0


async def test_a_kind_is_measured_directly_and_through_the_scheduler(tmp_path: Path) -> None:
    plan = Plan((BY_NAME["streams"],), seconds=1.0, rounds=1)
    with RunProgress(Console(stderr=True), "kinds", plan.total_s) as progress:
        (one,) = await measure(plan, tmp_path, progress)
    assert not one.errors
    assert all(rates[0] > 0 for rates in (one.direct, one.background, one.interactive))
    assert one.alone_ms
    assert one.flooded_ms
