"""Samples against histograms: what was booked is what the recording says."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.recording.histogram import HIGHEST_US, Columns, cell_ms, new_histogram, record_s
from bench.recording.outcome import Outcome
from bench.recording.recording import Recorder, Recording


def saved(recorder: Recorder, path: Path, end_s: float = 10.0) -> Recording:
    recorder.save(path / "one.json", end_s=end_s, cpu_s=0.5)
    return Recording.load(path / "one.json")


def book(recorder: Recorder, due_s: float, late_s: float, done_s: float | None, outcome: Outcome = Outcome.OK) -> None:
    number = recorder.arrive(due_s)
    recorder.send(number, due_s + late_s)
    if done_s is not None:
        recorder.finish(number, done_s, outcome)


def pooled(columns: Columns) -> list[float]:
    """The values of all histograms, each as often as it was counted."""
    return np.repeat(columns.values_ms, columns.counts.sum(axis=0)).tolist()


def test_latency_counts_from_the_due_time_and_refusals_from_sending(tmp_path: Path) -> None:
    recorder = Recorder(4.0)
    book(recorder, 0.5, 0.010, 0.530)
    book(recorder, 1.5, 0.010, 1.515, Outcome.REFUSED)
    book(recorder, 1.6, 0.010, 1.612, Outcome.INFEASIBLE)
    book(recorder, 1.7, 0.0, 1.9, Outcome.DEADLINE)
    book(recorder, 1.8, 0.0, 1.801, Outcome.ERROR)
    recording = saved(recorder, tmp_path)
    assert pooled(recording.latency) == pytest.approx([30, 200], rel=1e-3)
    assert pooled(recording.refusal) == pytest.approx([2, 5], rel=1e-3)
    assert pooled(recording.lateness)[-3:] == pytest.approx([10, 10, 10], rel=1e-3)
    assert recording.counts["arrived"].tolist() == [1, 4, 0, 0]
    assert recording.counts["refused"].tolist() == recording.counts["no_pushback"].tolist() == [0, 1, 0, 0]
    assert recording.counts["done_turned_away"].sum() == 2


def test_what_never_came_back_counts_with_its_age(tmp_path: Path) -> None:
    recorder = Recorder(2.0)
    book(recorder, 0.5, 0.0, None)
    recorder.arrive(1.5)
    recording = saved(recorder, tmp_path, end_s=4.0)
    assert pooled(recording.latency) == pytest.approx([2500, 3500], rel=1e-3)
    assert recording.counts["unanswered"].tolist() == [1, 0]
    assert recording.counts["unsent"].tolist() == [0, 1]
    assert recording.counts["sent_in_time"].tolist() == [1, 0]


def test_throughput_is_by_the_second_of_the_answer_and_ends_with_the_run(tmp_path: Path) -> None:
    recorder = Recorder(3.0, deadline_ms=1500)
    book(recorder, 0.1, 0.0, 1.2)
    book(recorder, 0.2, 0.0, 2.2)  # too late for its deadline
    book(recorder, 2.9, 0.0, 3.1)  # after the run
    recording = saved(recorder, tmp_path)
    assert recording.counts["ok"].tolist() == [2, 0, 1]
    assert recording.counts["done_ok"].tolist() == [0, 1, 1]
    assert recording.counts["done_in_time"].tolist() == [0, 1, 0]


def test_a_request_may_have_a_deadline_of_its_own(tmp_path: Path) -> None:
    recorder = Recorder(1.0, deadline_ms=100)
    for number, deadline_ms in enumerate((None, 50, 150)):
        assert recorder.arrive(0.1) == number + 1
        recorder.send(number + 1, 0.1, deadline_ms)
    for number, done_s in enumerate((0.21, 0.16, 0.24)):
        recorder.finish(number + 1, done_s, Outcome.OK)
    assert saved(recorder, tmp_path).counts["done_in_time"].tolist() == [1]


def test_errors_keep_their_first_message(tmp_path: Path) -> None:
    recorder = Recorder(1.0)
    recorder.failed("UNAVAILABLE", "gone")
    recorder.failed("UNAVAILABLE", "still gone")
    recording = saved(recorder, tmp_path)
    assert recording.errors == {"UNAVAILABLE": 2}
    assert recording.first_error == "UNAVAILABLE: gone"
    assert math.isnan(recording.latency.weighted(np.ones(1)).percentile_ms(50))


@given(
    st.lists(st.floats(min_value=1e-6, max_value=500), min_size=1, max_size=50), st.floats(min_value=1, max_value=100)
)
def test_percentiles_are_within_a_thousandth_of_the_samples(values_s: list[float], percent: float) -> None:
    histogram = new_histogram()
    for value_s in values_s:
        record_s(histogram, value_s)
    found_ms = Columns.decode([histogram.encode().decode()]).weighted(np.ones(1)).percentile_ms(percent)
    exact_ms = np.percentile(np.array(values_s), percent, method="inverted_cdf") * 1e3
    assert found_ms == pytest.approx(exact_ms, rel=2e-3, abs=1e-3)


def test_values_out_of_range_count_as_its_ends() -> None:
    histogram = new_histogram()
    record_s(histogram, -1.0)
    record_s(histogram, 1e6)
    columns = Columns.decode([histogram.encode().decode()])
    assert columns.values_ms[0] == 0.001
    assert columns.values_ms[-1] == pytest.approx(HIGHEST_US / 1e3, rel=1e-3)


def test_stacked_histograms_stay_apart() -> None:
    one = Columns(np.array([1.0, 3.0]), np.array([[1, 2]]))
    other = Columns(np.array([2.0, 3.0]), np.array([[5, 7], [0, 1]]))
    stack = Columns.stack([one, other])
    assert stack.values_ms.tolist() == [1, 2, 3]
    assert stack.counts.tolist() == [[1, 0, 2], [0, 5, 7], [0, 0, 1]]
    assert stack.weighted(np.array([1.0, 0, 2])).counts.tolist() == [1, 0, 4]
    assert np.all(np.diff(cell_ms()) > 0)
