from random import Random

import pytest

from scheduler.core.latency import estimate
from scheduler.core.latency.estimate import (
    CLIP,
    FIRST_ROW_S,
    FORGET,
    GROWTH,
    KNOWN_SAMPLES,
    RESTART,
    SPREAD_MAX,
    SPREAD_MIN,
    Estimator,
    LatencyLine,
)


def learned(*samples: tuple[int, float]) -> LatencyLine:
    line = LatencyLine()
    for rows, service_s in samples:
        line.learn(rows, service_s)
    return line


def samples_of(a: float, b: float, sizes: tuple[int, ...], times: int = 10) -> list[tuple[int, float]]:
    return [(rows, a + b * rows) for rows in sizes] * times


def test_before_the_first_sample_a_row_has_the_first_guess_and_one_row_is_tried():
    line = LatencyLine()
    assert line.predict(4) == 4 * FIRST_ROW_S
    assert line.row_s == FIRST_ROW_S
    assert line.rows_within(1.0) == 1
    assert line.rows_within(0.001) == 0


def test_exact_samples_give_the_exact_line():
    line = learned(*samples_of(0.01, 0.002, (1, 2, 4, 8)))
    assert line.coefficients() == pytest.approx((0.01, 0.002))
    assert line.predict(6) == pytest.approx(0.022)


def test_a_row_costs_its_part_of_the_constant():
    assert learned((1, 0.03), (9, 0.07)).row_s == pytest.approx(0.1 / 10, rel=0.05)


def test_rows_within_is_the_largest_batch_that_ends_in_time():
    line = learned(*samples_of(0.01, 0.002, (1, 16, 32)))
    assert line.rows_within(0.0501) == 20
    assert line.rows_within(0.0121) == 1
    assert line.rows_within(0.01) == 0


def test_nothing_is_extrapolated_beyond_growth_times_the_largest_seen():
    assert learned(*samples_of(0.001, 0.0001, (1, 2))).rows_within(10.0) == GROWTH * 2


def test_samples_of_one_size_run_the_line_through_the_origin():
    assert learned((4, 0.02), (4, 0.02)).coefficients() == pytest.approx((0.0, 0.005))


def test_a_negative_constant_becomes_a_line_through_the_origin():
    a, b = learned((1, 0.001), (8, 0.1)).coefficients()
    assert a == 0.0
    assert b == pytest.approx(0.0123, rel=0.05)


def test_a_negative_slope_becomes_a_constant():
    line = learned((1, 0.03), (2, 0.01))
    assert line.coefficients() == (pytest.approx(0.02, rel=0.05), 0.0)
    assert line.rows_within(0.025) == 4
    assert line.rows_within(0.015) == 0


def test_one_stall_of_any_length_moves_the_line_by_half_a_per_cent():
    for stall_s in (0.1, 100.0):
        line = learned(*samples_of(0.0, 0.01, (1,), 40))
        line.learn(1, stall_s)
        assert line.predict(1) <= 0.01 * (1 + (1 - FORGET) * CLIP * SPREAD_MIN * 1.6)


def test_clipping_begins_with_the_sample_after_the_first_few():
    unknown, known = learned(*[(1, 0.01)] * (KNOWN_SAMPLES - 1)), learned(*[(1, 0.01)] * KNOWN_SAMPLES)
    assert unknown.learn(1, 9.0) == 9.0
    assert known.learn(1, 9.0) == pytest.approx(0.01 * (1 + CLIP))


def test_a_second_stall_counts_for_more_as_the_spread_has_moved_a_tenth_of_the_way_to_its_bound():
    line = learned(*[(1, 0.01)] * 100)
    assert line.learn(1, 9.0) == pytest.approx(0.01 * (1 + CLIP * SPREAD_MIN))
    assert line.learn(1, 9.0) == pytest.approx(0.01 * (1 + CLIP * 0.1 * SPREAD_MAX), rel=0.01)


def test_of_what_is_larger_than_all_of_late_more_is_believed():
    line, stalled = learned(*[(1, 0.01)] * 100), learned(*[(1, 0.01)] * 100)
    assert line.learn(8, 0.2) == 0.2
    assert stalled.learn(8, 9.0) == pytest.approx(0.08 * (1 + CLIP))


def test_a_large_batch_is_remembered_while_smaller_ones_run():
    line = learned(*samples_of(0.0, 0.001, (1, 8)), (1, 0.001))
    assert line.largest_rows == 8 * FORGET
    assert line.rows_within(1.0) == 15


def test_what_is_faster_than_expected_is_believed():
    line = learned(*samples_of(0.0, 0.01, (1,), 40), *samples_of(0.0, 0.005, (1,), 40))
    assert line.predict(1) < 0.0066


def test_jitter_within_the_spread_is_not_clipped():
    line, chance = LatencyLine(), Random(1)
    for _ in range(1000):
        line.learn(1, 0.01 * chance.uniform(0.8, 1.2))
    assert line.predict(1) == pytest.approx(0.01, rel=0.03)


def test_a_lasting_change_arrives():
    line = learned(*samples_of(0.01, 0.001, (1, 4), 50), *samples_of(0.2, 0.02, (1, 4), 150))
    assert line.coefficients() == pytest.approx((0.2, 0.02), rel=0.02)


def test_a_clock_that_stood_still_does_not_make_a_model_free_for_ever():
    line = learned(*[(1, 0.0)] * 20)
    assert line.row_s > 0
    for _ in range(500):
        line.learn(1, 0.01)
    assert line.predict(1) == pytest.approx(0.01, rel=0.01)


def grow(line: LatencyLine, a: float, b: float, bound_s: float, batches: int) -> list[int]:
    """Batches as large as the line allows, as a flood of single rows would make them."""
    sizes = []
    for _ in range(batches):
        rows = max(1, line.rows_within(bound_s))
        line.learn(rows, a + b * rows)
        sizes.append(rows)
    return sizes


def test_batches_grow_by_doubling_until_they_meet_the_bound():
    assert grow(LatencyLine(), 0.005, 0.001, 0.0255, 8) == [1, 2, 4, 8, 16, 20, 20, 20]


def test_a_large_constant_does_not_keep_batches_at_one_row():
    # One row takes 15.1 ms; seen from the origin two rows would take 30.2 ms and never be tried.
    assert grow(LatencyLine(), 0.015, 0.0001, 0.02501, 9)[-1] == 100


def test_where_two_rows_break_the_bound_they_are_tried_once_and_not_again_for_hundreds_of_batches():
    sizes = grow(LatencyLine(), 0.0, 0.021, 0.025, 300)
    assert sizes.count(2) == 1
    assert set(sizes) == {1, 2}


def test_batches_of_one_size_keep_the_constant_that_was_learned_before():
    line = LatencyLine()
    grow(line, 0.015, 0.0005, 0.02501, 20)
    for _ in range(1000):
        line.learn(20, 0.025)
    assert line.coefficients() == pytest.approx((0.015, 0.0005), rel=0.05)
    assert line.rows_within(0.02501) in (19, 20)


def test_one_size_over_the_bound_is_not_grown():
    assert learned(*[(4, 0.1)] * 10).rows_within(0.06) == 2


def test_a_size_not_seen_of_late_is_approached_anew():
    # Long after the large batches, noise makes the slope negative: they must not come back at one blow.
    line = learned(*samples_of(0.01, 0.001, (64,), 5))
    for _ in range(300):
        line.learn(1, 0.012)
        line.learn(2, 0.011)
    assert line.coefficients()[1] == 0.0
    assert line.rows_within(0.025) == GROWTH * 2


def test_a_stall_at_the_first_try_of_two_rows_is_got_over():
    line = learned(*[(1, 0.0151)] * 3, (2, 0.08))
    sizes = grow(line, 0.015, 0.0001, 0.025, 1500)
    assert max(sizes[-100:]) > 50


def test_after_eight_batches_in_a_row_that_took_less_than_a_fifth_the_line_begins_anew():
    line = learned((1, 6.0), (1, 6.0))
    for _ in range(RESTART - 1):
        line.learn(1, 0.005)
    assert line.predict(1) > 1.0
    line.learn(2, 0.006)
    assert line.samples == RESTART
    assert line.coefficients() == pytest.approx((0.004, 0.001))
    assert line.batch_s == pytest.approx(0.0051, rel=0.02)
    assert LatencyLine().batch_s == FIRST_ROW_S


def test_a_slow_one_in_between_starts_the_count_anew():
    line = learned((1, 6.0), *[(1, 0.005)] * (RESTART - 1), (1, 6.0), *[(1, 0.005)] * (RESTART - 1))
    assert line.predict(1) > 0.4


def test_two_modes_are_learned_as_their_mean():
    chance, line = Random(1), LatencyLine()
    for _ in range(1000):
        line.learn(1, chance.choice((0.01, 0.05)))
        assert line.samples < 20 or 0.015 < line.predict(1) < 0.045


class TestEstimator:
    def test_a_new_key_predicts_with_the_models_line_and_tries_one_row(self):
        estimator = Estimator()
        for rows, service_s in samples_of(0.01, 0.002, (1, 8)):
            estimator.learn("known", rows, service_s)
        assert estimator.line("new").predict(8) == pytest.approx(0.026)
        assert estimator.rows_within("new", 1.0) == 1
        assert estimator.rows_within("new", 0.001) == 0
        assert estimator.rows_within("known", 1.0) == 16

    def test_keys_are_learned_apart_and_the_model_from_all(self):
        estimator = Estimator()
        estimator.learn("short", 1, 0.01)
        estimator.learn("long", 1, 0.03)
        estimator.learn(None, 1, 0.02)
        assert estimator.line("short").row_s == 0.01
        assert estimator.line("long").row_s == 0.03
        assert estimator.line(None).row_s == pytest.approx(0.02, rel=0.02)
        assert estimator.rows_within(None, 1.0) == 2
        assert len(estimator) == 2

    def test_the_key_least_recently_learned_is_dropped(self, monkeypatch):
        monkeypatch.setattr(estimate, "MAX_LINES", 2)
        estimator = Estimator()
        for key in ("a", "b", "a", "c"):
            estimator.learn(key, 1, 0.01)
        assert len(estimator) == 2
        assert estimator.rows_within("a", 1.0) == 2
        assert estimator.rows_within("b", 1.0) == 1


def test_free_rows_are_those_that_lengthen_the_batch_by_no_more_than_their_part():
    estimator = Estimator()
    for rows, service_s in samples_of(0.0201, 0.001, (1, 8)):
        estimator.learn("k", rows, service_s)
    # Two rows take 22.1 ms; 27.6 are allowed, which is seven.
    assert estimator.rows_for_free("k", 2, 0.25) == 7
    assert estimator.rows_for_free("k", 12, 0.0) == 12


def test_a_backend_that_is_new_predicts_by_the_others_and_tries_one_row():
    others = Estimator()
    for rows, service_s in samples_of(0.01, 0.002, (1, 8)):
        others.learn("k", rows, service_s)
        others.learn("another", rows, 10 * service_s)
    new = Estimator(others)
    assert not new.knows(None)
    assert not new.knows("k")
    assert new.line("k").predict(8) == pytest.approx(0.026)
    assert new.rows_within("k", 1.0) == 1
    new.learn("k", 1, 0.1)
    assert new.knows(None)
    assert new.knows("k")
    assert not new.knows("another")
    assert new.line("k").predict(1) == 0.1


def test_what_was_clipped_counts_as_clipped_for_all():
    here, all_of_them = Estimator(), Estimator()
    for _ in range(40):
        here.learn("k", 1, 0.01)
    all_of_them.add("k", 1, here.learn("k", 1, 9.0))
    assert all_of_them.line("k").row_s < 0.02
    all_of_them.add(None, 1, 0.01)
    assert len(all_of_them) == 1


def test_what_others_have_learned_is_kept_by_key():
    estimator = Estimator()
    estimator.add("short", 1, 0.01)
    estimator.add("long", 1, 0.03)
    assert [estimator.line(key).row_s for key in ("short", "long")] == [0.01, 0.03]
    assert estimator.line(None).row_s == pytest.approx(0.02, rel=0.02)


def test_a_part_of_the_full_rate_takes_the_smallest_batch_that_reaches_it():
    line = LatencyLine()
    for rows in (1, 8) * 10:
        line.learn(rows, 0.060 + 0.001 * rows)
    # Eight rows in 68 ms; three in 63 ms are less than half as fast, and four in 64 ms are more.
    assert line.rows_for_rate(0.5, 8) == 4
    assert line.rows_for_rate(1.0, 8) == 8
    # Eight rows in 50 ms; one in 15 ms is less than half as fast, and two in 20 ms are more.
    assert learned(*samples_of(0.010, 0.005, (1, 8))).rows_for_rate(0.5, 8) == 2


def test_where_a_batch_has_no_constant_one_row_is_as_good_as_many():
    assert LatencyLine().rows_for_rate(0.5, 8) == 1
