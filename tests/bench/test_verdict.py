import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from bench.outcome import Outcome
from bench.result import Result
from bench.samples import NEVER, Samples
from bench.verdict import ratio_at_most, verdicts

MakeResult = Callable[..., Result]
MakeSamples = Callable[..., Samples]


def failed(result: Result) -> set[str]:
    return {verdict.name for verdict in verdicts(result) if not verdict.passed}


def test_a_good_result_passes_everything(made_result: MakeResult) -> None:
    result = made_result()
    assert failed(result) == set()
    found = {verdict.name: verdict.found for verdict in verdicts(result)}
    assert found["p99_flooded_to_alone"] == "20.0 / 8.0 ms = 2.50"
    assert found["p99_fairlane_to_priorities"] == "20.0 / 400.0 ms = 0.05"
    assert found["throughput"] == "145 / 105 per s = 1.38"  # 98 interactive, 47 of the flood in the second
    assert found["background_pushed_back"].startswith("50 refused, 0 of them")


@pytest.mark.parametrize(
    ("phase", "latency_ms", "name"),
    [
        ("fairlane-flood", 24.1, "p99_flooded_to_alone"),
        ("priorities-flood", 59.9, "p99_fairlane_to_priorities"),
    ],
)
def test_latency_ratios(
    made_result: MakeResult, made_samples: MakeSamples, phase: str, latency_ms: float, name: str
) -> None:
    assert failed(made_result({(phase, "interactive"): made_samples([latency_ms] * 100)})) == {name}


@pytest.mark.parametrize("end", [Outcome.REFUSED, Outcome.ERROR, Outcome.DEADLINE])
def test_one_interactive_request_without_an_answer_fails(
    made_result: MakeResult, made_samples: MakeSamples, end: Outcome
) -> None:
    outcome = np.array([Outcome.OK] * 99 + [end], np.uint8)
    result = made_result({("fairlane-flood", "interactive"): made_samples([20.0] * 100, outcome=outcome)})
    assert failed(result) == {"interactive_all_answered"}


def test_unanswered_interactive_requests_fail_their_percentile_too(
    made_result: MakeResult, made_samples: MakeSamples
) -> None:
    outcome = np.array([Outcome.OK] * 98 + [Outcome.UNANSWERED] * 2, np.uint8)
    samples = made_samples([20.0] * 98 + [NEVER] * 2, outcome=outcome)
    expected = {"interactive_all_answered", "p99_flooded_to_alone", "p99_fairlane_to_priorities"}
    assert failed(made_result({("fairlane-flood", "interactive"): samples})) == expected


def test_throughput_is_relative_to_the_mean_of_both_capacities(made_result: MakeResult) -> None:
    result = made_result()
    assert result.reference_per_s == 105
    for capacity_per_s, passes in ((161.0, True), (162.0, False)):  # 145 / 161 = 0.9006
        changed = dataclasses.replace(result, capacity_per_s=(capacity_per_s, capacity_per_s))
        assert ("throughput" not in failed(changed)) is passes


def test_a_refusal_without_pushback_fails(made_result: MakeResult, made_samples: MakeSamples) -> None:
    outcome = np.array([Outcome.OK] * 50 + [Outcome.REFUSED] * 50, np.uint8)
    flood = made_samples([50.0] * 100, outcome=outcome, pushback=np.arange(100) > 50)
    assert failed(made_result({("fairlane-flood", "background"): flood})) == {"background_pushed_back"}


def test_a_flood_that_was_never_refused_fails(made_result: MakeResult, made_samples: MakeSamples) -> None:
    result = made_result({("fairlane-flood", "background"): made_samples([50.0] * 100)})
    assert failed(result) == {"background_pushed_back"}


def test_memory_may_grow_while_the_queue_fills_but_not_after(made_result: MakeResult) -> None:
    assert failed(made_result(rss_mib=[50.0, 70, 90, 100, 100, 100, 101, 104, 104])) == set()
    assert failed(made_result(rss_mib=[100.0, 100, 100, 100, 100, 110, 120, 130, 140])) == {"memory_flat"}


def test_a_late_generator_is_said_and_fails(made_result: MakeResult, made_samples: MakeSamples) -> None:
    on_time = made_samples([20.0] * 100)
    late = made_samples([20.0] * 100, sent_s=on_time.due_s + 0.02)
    result = made_result({("fairlane-flood", "interactive"): late})
    assert failed(result) == {"valid"}
    assert "fairlane-flood, interactive: the generator fell behind" in verdicts(result)[0].found


def test_a_machine_that_changed_is_said_and_fails(made_result: MakeResult) -> None:
    result = dataclasses.replace(made_result(), capacity_per_s=(100.0, 120.0))
    assert failed(result) == {"valid"}
    assert verdicts(result)[0].found == "the machine changed: Triton's capacity was 100/s before and 120/s after"


def test_nothing_passes_without_numbers() -> None:
    assert ratio_at_most(3.0, 1.0, 3.0)
    assert not ratio_at_most(1.0, 0.0, 3.0)
    assert not ratio_at_most(float("nan"), 1.0, 3.0)
    assert not ratio_at_most(1.0, float("nan"), 3.0)
