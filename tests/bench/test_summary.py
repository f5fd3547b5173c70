import math
from collections.abc import Callable

import numpy as np
import pytest

from bench.outcome import Outcome
from bench.samples import NEVER, Samples
from bench.summary import load_faults, percentile, steady_ok_per_s, summarize

Make = Callable[..., Samples]


def test_percentiles_are_observed_samples() -> None:
    values = np.arange(1, 801, dtype=np.float64)
    assert percentile(values, 50) == 400
    assert percentile(values, 99) == 792  # 8 of 800 lie above
    assert percentile(values, 100) == 800
    assert math.isnan(percentile(values[:0], 99))


def test_unanswered_requests_count_in_percentiles(made_samples: Make) -> None:
    outcome = np.array([Outcome.OK] * 90 + [Outcome.UNANSWERED] * 10, np.uint8)
    summary = summarize(made_samples([5.0] * 90 + [NEVER] * 10, outcome=outcome))
    assert summary.p50_ms == pytest.approx(5)
    assert summary.p99_ms > 2000  # the age at the end of the grace
    assert summary.unanswered == 10


def test_a_quick_refusal_is_not_a_low_latency(made_samples: Make) -> None:
    outcome = np.array([Outcome.REFUSED] * 90 + [Outcome.OK] * 10, np.uint8)
    pushback = np.arange(100) < 89
    summary = summarize(made_samples([0.1] * 90 + [40.0] * 10, outcome=outcome, pushback=pushback))
    assert summary.p50_ms == pytest.approx(40)
    assert summary.refused == 90
    assert summary.refused_without_pushback == 1


def test_answers_in_the_grace_are_not_throughput(made_samples: Make) -> None:
    summary = summarize(made_samples([5.0] * 50 + [1500.0] * 50))
    assert summary.ok == 100
    assert summary.ok_per_s == pytest.approx(50)  # 50 within the run's one second


def test_capacity_leaves_the_start_out(made_samples: Make) -> None:
    samples = made_samples([500.0] * 100)  # 100/s, and the first answer after half a second
    assert summarize(samples).ok_per_s == pytest.approx(50)
    assert steady_ok_per_s(samples, 0.5) == pytest.approx(100)


def test_late_generator_marks_the_run_invalid(made_samples: Make) -> None:
    samples = made_samples([30.0] * 100)
    late = made_samples([30.0] * 100, sent_s=samples.due_s + 0.011)
    assert load_faults("interactive", summarize(samples), lateness_p99_bound_ms=10) == []
    assert "fell behind" in load_faults("interactive", summarize(late), lateness_p99_bound_ms=10)[0]
    assert load_faults("background", summarize(late), lateness_p99_bound_ms=None) == []
    slow = made_samples([3000.0] * 100, sent_s=samples.due_s + 0.011)
    assert load_faults("interactive", summarize(slow), lateness_p99_bound_ms=10) == []


def test_requests_that_were_not_sent_mark_the_run_invalid(made_samples: Make) -> None:
    outcome = np.array([Outcome.OK] * 90 + [Outcome.UNSENT] * 10, np.uint8)
    clean = made_samples([30.0] * 100)
    sent_s = np.where(outcome == Outcome.UNSENT, NEVER, clean.due_s)
    summary = summarize(made_samples([30.0] * 90 + [NEVER] * 10, outcome=outcome, sent_s=sent_s))
    faults = load_faults("background", summary, lateness_p99_bound_ms=None)
    assert summary.sent_share == pytest.approx(0.9)
    assert len(faults) == 2
    assert "bound on outstanding" in faults[1]


def test_empty_stream_has_no_percentiles(made_samples: Make) -> None:
    summary = summarize(made_samples([]))
    assert math.isnan(summary.p99_ms)
    assert summary.n == 0
