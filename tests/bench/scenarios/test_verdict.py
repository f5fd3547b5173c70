from collections.abc import Callable

import pytest

from bench.recording.outcome import Outcome
from bench.recording.recording import Recording
from bench.scenarios.result import Result

MakeResult = Callable[..., Result]
Make = Callable[..., Recording]
FLOOD = "fairlane.flood.interactive"


def failed(result: Result) -> set[str]:
    return {verdict.name for verdict in result.verdicts if not verdict.passed}


def test_a_good_result_passes_everything_and_is_valid(made_result: MakeResult) -> None:
    result = made_result()
    assert failed(result) == set()
    assert result.valid
    found = {verdict.name: verdict.found for verdict in result.verdicts}
    assert found["p99"] == "20.0 / 8.00 = 2.50, rounds 2.50 2.50"
    assert found["throughput"] == "200 / 200 = 1, rounds 1 1"
    assert found["memory"].startswith("1")


@pytest.mark.parametrize(("latency_ms", "holds"), [(23.9, True), (24.2, False)])
def test_a_ratio_is_held_against_its_bound(
    made_result: MakeResult, made_recording: Make, latency_ms: float, holds: bool
) -> None:
    result = made_result({FLOOD: [made_recording([latency_ms] * 100)] * 2})
    assert ("p99" not in failed(result)) is holds


@pytest.mark.parametrize("end", [Outcome.REFUSED, Outcome.ERROR, Outcome.DEADLINE, None])
def test_one_request_without_an_answer_fails(
    made_result: MakeResult, made_recording: Make, end: Outcome | None
) -> None:
    bad = made_recording([20.0] * 200, outcomes=[end])
    result = made_result({FLOOD: [made_recording([20.0] * 200), bad]})
    assert "answered" in failed(result)


def test_unanswered_requests_fail_their_percentile_too(made_result: MakeResult, made_recording: Make) -> None:
    bad = made_recording([20.0] * 100, outcomes=[None, None, None])
    assert {"answered", "p99"} <= failed(made_result({FLOOD: [bad, bad]}))


def test_nothing_passes_without_numbers(made_result: MakeResult, made_recording: Make) -> None:
    refused = made_recording([1.0] * 10, outcomes=[Outcome.REFUSED] * 10)
    result = made_result({FLOOD: [refused] * 2})
    assert "p99" in failed(result)
    assert next(one.found for one in result.verdicts if one.name == "p99").startswith("none")


def test_a_bound_within_the_interval_is_said(made_result: MakeResult, made_recording: Make) -> None:
    result = made_result({FLOOD: [made_recording([10.0] * 100), made_recording([40.0] * 100)]})
    verdict = next(one for one in result.verdicts if one.name == "p99")
    assert not verdict.clear
    assert "rounds 1.25 5" in verdict.found


def test_a_late_generator_makes_the_run_invalid(made_result: MakeResult, made_recording: Make) -> None:
    late = made_recording([20.0] * 100, late_ms=11)
    result = made_result({FLOOD: [late] * 2})
    assert not result.valid
    assert result.faults == [f"{FLOOD}: the generator fell behind, its p99 lateness 11.0 ms is above 10 ms"]


def test_lateness_that_changes_nothing_about_the_figure_is_no_fault(
    made_result: MakeResult, made_recording: Make
) -> None:
    assert made_result({FLOOD: [made_recording([300.0] * 100, late_ms=11)] * 2}).valid
    flood = made_recording([300.0] * 100, late_ms=200)
    assert made_result({"fairlane.flood.flood": [flood] * 2}).valid  # only its rate matters


def test_requests_that_were_not_sent_in_time_make_the_run_invalid(
    made_result: MakeResult, made_recording: Make
) -> None:
    flood = made_recording([900.0] * 100, late_ms=600)
    (fault,) = made_result({"fairlane.flood.flood": [flood] * 2}).faults
    assert fault == "fairlane.flood.flood: only 81% of the due requests were sent within the run"


def test_a_machine_that_others_kept_busy_makes_the_run_invalid(made_result: MakeResult) -> None:
    assert made_result(others_cores=0.2).valid
    (fault,) = made_result(others_cores=1.0).faults
    assert fault.startswith("triton.alone: other processes kept 1.0 of ")
