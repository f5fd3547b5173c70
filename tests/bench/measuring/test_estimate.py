"""Pooling and the bootstrap, against what can be computed by hand."""

import math
import operator
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from bench.measuring.batch_statistics import BatchStatistics
from bench.measuring.estimate import REPLICATES, Estimate, estimate_metrics
from bench.measuring.metric import jain
from bench.measuring.pool import PhasePool, StreamPool
from bench.measuring.process_watch import ProcessUsage
from bench.recording.outcome import Outcome
from bench.recording.recording import Recording

Make = Callable[..., Recording]


def pool(*rounds: Recording, hop: ProcessUsage | None = None) -> dict[str, PhasePool]:
    return {"fairlane.flood": PhasePool({"one": StreamPool(list(rounds), 100.0)}, [hop] * len(rounds))}


def test_pooled_percentiles_are_those_of_all_samples_and_each_round_has_its_own(made_recording: Make) -> None:
    found = estimate_metrics(pool(made_recording([10.0] * 99), made_recording([50.0] * 101)), seed=1)
    p50 = found["fairlane.flood.one.p50_ms"]
    assert p50.value == pytest.approx(50, rel=1e-3)
    assert p50.rounds == pytest.approx([10, 50], rel=1e-3)
    assert p50.median == pytest.approx(30, rel=1e-3)
    assert p50.interval == pytest.approx((10, 50), rel=1e-3)


def test_rounds_without_spread_have_an_interval_of_nothing(made_recording: Make) -> None:
    found = estimate_metrics(pool(*(made_recording([10.0] * 100) for _ in range(3))), seed=1)
    low, high = found["fairlane.flood.one.p99_ms"].interval
    assert low == high == pytest.approx(10, rel=1e-3)
    assert len(found["fairlane.flood.one.p99_ms"].replicates) == REPLICATES


def test_a_drift_that_hits_both_sides_of_a_round_cancels_in_their_ratio(made_recording: Make) -> None:
    pools = {
        "triton.flood": pool(made_recording([10.0] * 50), made_recording([40.0] * 50))["fairlane.flood"],
        "fairlane.flood": pool(made_recording([20.0] * 50), made_recording([80.0] * 50))["fairlane.flood"],
    }
    found = estimate_metrics(pools, seed=1)
    ratio = found["fairlane.flood.one.p99_ms"].combine(found["triton.flood.one.p99_ms"], operator.truediv)
    assert ratio.rounds == pytest.approx([2, 2], rel=2e-3)
    assert ratio.interval == pytest.approx((2, 2), rel=2e-3)


def test_throughput_leaves_out_the_first_second_of_a_longer_phase(made_recording: Make) -> None:
    recording = made_recording([1.0] * 80, seconds=8.0)  # all due, and answered, in the first four seconds
    found = estimate_metrics(pool(recording), seed=1)
    assert found["fairlane.flood.one.ok_per_s"].value == pytest.approx(60 / 7)
    assert found["fairlane.flood.one.offered_per_s"].value == pytest.approx(10)


def test_goodput_counts_answers_within_the_deadline_alone(made_recording: Make) -> None:
    found = estimate_metrics(pool(made_recording([100.0] * 3 + [300.0], deadline_ms=250)), seed=1)
    assert found["fairlane.flood.one.ok_per_s"].value == 4
    assert found["fairlane.flood.one.goodput_per_s"].value == 3


def test_who_is_turned_away_is_in_no_latency(made_recording: Make) -> None:
    found = estimate_metrics(
        pool(made_recording([2.0, 3.0, 100.0], outcomes=[Outcome.REFUSED, Outcome.INFEASIBLE])), seed=1
    )
    assert found["fairlane.flood.one.refused"].value == 2
    assert found["fairlane.flood.one.p50_ms"].value == pytest.approx(100, rel=1e-3)
    assert found["fairlane.flood.one.refusal_p99_ms"].value == pytest.approx(3, rel=1e-3)
    assert found["fairlane.flood.one.not_ok"].value == 2


def test_cpu_and_memory_of_the_hop_are_by_the_round(made_recording: Make) -> None:
    usage = ProcessUsage(at_s=[0.0, 1.0, 2.0, 3.0, 4.0], rss_mib=[10.0, 10, 20, 25, 30], cpu_s=0.02)
    found = estimate_metrics(pool(*(made_recording([1.0] * 100) for _ in range(2)), hop=usage), seed=1)
    assert found["fairlane.flood.hop_cpu_us_per_request"].value == pytest.approx(200)
    assert found["fairlane.flood.hop_growth_mib"].value == 5
    none = estimate_metrics(pool(made_recording([1.0])), seed=1)
    assert math.isnan(none["fairlane.flood.hop_cpu_us_per_request"].value)


def test_jain_is_one_for_equal_shares_and_one_over_n_for_one_taker() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([5, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([1, 2]) == pytest.approx(0.9)
    assert math.isnan(jain([0, 0]))


def test_fairness_is_of_service_time_and_not_of_requests(made_recording: Make) -> None:
    # Requests of the second stream take four times as long at Triton; it gets a quarter of the answers.
    streams = {
        "cheap": StreamPool([made_recording([1.0] * 40)], 400.0),
        "dear": StreamPool([made_recording([1.0] * 10)], 100.0),
    }
    found = estimate_metrics({"fairlane.both": PhasePool(streams, [None])}, seed=1)
    assert found["fairlane.both.jain"].value == pytest.approx(1)


def test_what_does_not_exist_has_no_interval() -> None:
    nothing = Estimate(math.nan, np.array([math.nan]), np.full(5, math.nan))
    assert all(math.isnan(end) for end in nothing.interval)


def test_batches_between_two_moments_are_told_by_size() -> None:
    before, after = Counter({1: 5, 4: 1}), Counter({1: 5, 4: 3, 8: 1})
    assert BatchStatistics(rows=25, runs=9, sizes=after).since(BatchStatistics(rows=9, runs=6, sizes=before)).sizes == {
        4: 2,
        8: 1,
    }


def test_rows_a_batch_are_those_of_all_rounds_together(made_recording: Make) -> None:
    batches = [
        BatchStatistics(rows=120, runs=50).since(BatchStatistics(rows=20, runs=40)),
        BatchStatistics(rows=100, runs=90),
    ]
    stream = StreamPool([made_recording([1.0] * 10) for _ in range(2)], 100.0, batches)
    found = estimate_metrics({"triton.flood": PhasePool({"one": stream}, [None, None])}, seed=1)[
        "triton.flood.one.batch_rows"
    ]
    assert found.value == 2
    assert found.rounds == pytest.approx([10, 100 / 90])
