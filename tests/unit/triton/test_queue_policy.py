"""Queue policies as config.pbtxt has them, and the settings that cost time behind a scheduler."""

from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.ticket import QueuePolicy
from scheduler.edge import status
from scheduler.triton.pool import BackendFailure
from scheduler.triton.queue_policy import hindrances, queue_policies


def config(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_without_a_policy_any_number_may_wait_as_long_as_they_like():
    for text in ("", "dynamic_batching { }", "sequence_batching { }", "ensemble_scheduling { }"):
        policies = queue_policies(config(text))
        assert (policies.levels, policies.policy_of(0), policies.policy_of(3)) == (0, None, None)


def test_a_default_policy_holds_for_every_priority():
    policies = queue_policies(
        config(
            "dynamic_batching { default_queue_policy { "
            "timeout_action: DELAY default_timeout_microseconds: 500000 max_queue_size: 4 } }"
        )
    )
    for priority in (0, 1, 7):
        assert policies.policy_of(priority) == QueuePolicy(0, 4, 0.5, delays=True)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("max_queue_size: 4", QueuePolicy(0, 4, None, delays=False)),
        ("default_timeout_microseconds: 1000", QueuePolicy(0, None, 0.001, delays=False)),
        ("allow_timeout_override: true", None),
    ],
)
def test_zero_is_no_bound_as_in_triton(policy, expected):
    assert (
        queue_policies(config(f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}")).policy_of(0) == expected
    )


LEVELS = """
dynamic_batching {
  priority_levels: 3 default_priority_level: 2
  default_queue_policy { max_queue_size: 9 }
  priority_queue_policy { key: 1 value { max_queue_size: 4 } }
  priority_queue_policy { key: 3 value { allow_timeout_override: true } }
}
"""


def test_each_level_has_its_policy_and_what_names_none_the_default_level():
    policies = queue_policies(config(LEVELS))
    assert policies.policy_of(1) == QueuePolicy(1, 4, None, delays=False)
    assert policies.policy_of(3) is None
    for priority in (0, 2, 4, 99):
        assert policies.policy_of(priority) == QueuePolicy(2, 9, None, delays=False)


@pytest.mark.parametrize(
    ("batching", "named"),
    [
        ("", []),
        ("preferred_batch_size: [4, 8]", []),
        ("max_queue_delay_microseconds: 500", ["max_queue_delay_microseconds: 500"]),
        ("preserve_ordering: true", ["preserve_ordering"]),
        ("default_queue_policy { max_queue_size: 4 }", ["default_queue_policy"]),
        (
            "priority_levels: 2 default_priority_level: 1 max_queue_delay_microseconds: 9 preserve_ordering: true",
            ["max_queue_delay_microseconds: 9", "preserve_ordering", "priority_levels: 2"],
        ),
    ],
)
def test_settings_that_cost_time_are_named_with_what_to_do(batching, named):
    found = hindrances(config(f"dynamic_batching {{ {batching} }}"))
    assert len(found) == len(named)
    assert all(each.startswith(f"{name}: ") for each, name in zip(found, named, strict=True))
    assert all("leave " in each for each in found)


def test_models_without_a_dynamic_batcher_have_no_such_settings():
    assert hindrances(config("sequence_batching { direct { max_queue_delay_microseconds: 5 } }")) == ()


@pytest.mark.parametrize(
    ("details", "outcome", "code"),
    [
        (
            "[request id: <id_unknown>] Exceeds maximum queue size",
            Outcome.QUEUE_FULL,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ),
        ("Request timeout expired", Outcome.QUEUE_TIMEOUT, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_a_refusal_by_tritons_own_queue_has_a_reason_and_a_pushback_and_says_nothing_against_the_backend(
    details, outcome, code
):
    failure = BackendFailure("m", grpc.StatusCode.UNAVAILABLE, details)
    assert (failure.outcome, failure.verdict) == (outcome, Verdict.FAILED)
    ended = status.of_backend_failure(failure)
    assert ended.code is code
    assert dict(ended.trailers)["fairlane-reason"] == outcome.name
    assert int(dict(ended.trailers)["grpc-retry-pushback-ms"]) == 1000


def test_the_same_words_with_another_code_are_the_models_own():
    failure = BackendFailure("m", grpc.StatusCode.INTERNAL, "Request timeout expired")
    assert (failure.outcome, failure.verdict) == (None, Verdict.FAILED)
    assert BackendFailure("m", grpc.StatusCode.UNAVAILABLE, "not now").verdict is Verdict.UNAVAILABLE
