import pytest

from scheduler.core.backends.concurrency import (
    QUIET_S,
    RATIO_MAX,
    RELEARNED,
    SMOOTHING,
    STALL,
    STEP,
    TOLERANCE,
    ConcurrencyLimit,
    Sample,
)


def learn(limit: ConcurrencyLimit, service_s: float, crowd: int, *, times: int = 1, wait_s: float = 9.0, most: int = 4):
    for _ in range(times):
        limit.learn(Sample("digits", "k", 1, service_s, wait_s, crowd), most=most, now=5.0)


def opened(at: float = 4.0) -> ConcurrencyLimit:
    """Alone a batch takes 10 ms; the limit has grown to `at`."""
    limit = ConcurrencyLimit()
    learn(limit, 0.01, 0, times=20)
    learn(limit, 0.01, 1, times=int(3 / STEP) + 1)
    assert limit.limit == 4.0
    limit.limit = at
    return limit


def test_it_starts_at_its_floor():
    limit = ConcurrencyLimit()
    assert (limit.limit, limit.ratio, limit.why, limit.moved_at) == (1.0, 1.0, "nothing is known yet", 0.0)


def test_it_binds_lesser_batches_of_other_models_for_a_while():
    limit = ConcurrencyLimit()
    assert not limit.binds("minilm", 1, now=0.0)
    limit.active("digits", 0, most=4, now=1.0)
    assert limit.binds("minilm", 1, now=1.0 + QUIET_S - 0.001)
    assert not limit.binds("minilm", 1, now=1.0 + QUIET_S)
    assert not limit.binds("digits", 1, now=1.0)
    assert not limit.binds("minilm", 0, now=1.0)


def test_good_batches_beside_others_make_it_grow_by_a_step_up_to_all_places():
    limit = ConcurrencyLimit()
    learn(limit, 0.01, 0, times=10)
    assert limit.limit == 1.0
    learn(limit, 0.011, 1)
    assert limit.limit == pytest.approx(1 + STEP)
    assert (limit.why, limit.moved_at) == ("digits is hardly slower than alone", 5.0)
    learn(limit, 0.011, 1, times=1000)
    assert limit.limit == 4.0


def test_slow_batches_halve_it_down_to_one_and_never_below():
    limit = opened()
    learn(limit, 0.04, 3, times=20)
    assert limit.limit == 1.0
    assert limit.why.startswith("digits takes")
    assert limit.moved_at == 5.0
    learn(limit, 0.04, 3, times=100)
    assert limit.limit == 1.0


def test_a_batch_longer_than_alone_by_over_its_wait_halves_it_at_once():
    limit = opened()
    learn(limit, 0.015, 1, wait_s=0.004)
    assert limit.limit == 2.0
    assert (limit.why, limit.moved_at) == ("digits took longer than alone by over its wait", 5.0)
    learn(limit, 0.015, 1, wait_s=0.004, times=3)
    assert limit.limit == 1.0


def test_a_batch_longer_than_its_wait_but_not_by_that_than_alone_does_not():
    limit = opened()
    learn(limit, 0.015, 1, wait_s=0.012)
    assert limit.limit == 4.0


def test_what_a_batch_takes_alone_is_known_by_key():
    limit = ConcurrencyLimit()
    learn(limit, 0.01, 0, times=20)
    for crowd in (0, 1) * 20:
        limit.learn(Sample("digits", "long", 1, 0.04, 9.0, crowd), most=4, now=5.0)
    assert limit.ratio == pytest.approx(1.0)
    learn(limit, 0.02, 1)
    assert limit.ratio == pytest.approx(1 + SMOOTHING)


def test_one_stall_counts_for_no_more_than_its_bound_and_is_got_over():
    limit = opened()
    learn(limit, 10.0, 1)
    assert limit.ratio <= 1 + SMOOTHING * (RATIO_MAX - 1) + 0.1
    learn(limit, 0.01, 1, times=int(4 / STEP))
    assert limit.limit == 4.0


def test_the_gradient_follows_the_ratio_between_a_half_and_one():
    limit = ConcurrencyLimit()
    told = []
    for limit.ratio in (1.0, TOLERANCE, 3.0, RATIO_MAX, 100.0):
        told.append(limit.gradient)
    assert told == [1.0, 1.0, TOLERANCE / 3, TOLERANCE / RATIO_MAX, 0.5]


def test_what_never_ran_alone_is_first_thought_to_be_slowed_by_all_that_is_beside_it():
    limit = ConcurrencyLimit()
    learn(limit, 0.04, 3, times=10)
    assert limit.ratio > TOLERANCE
    assert limit.limit == 1.0


def test_where_nothing_is_shared_that_is_found_out_by_growing():
    limit = ConcurrencyLimit()
    learn(limit, 0.01, 3, times=10)
    assert limit.limit == 1.0
    learn(limit, 0.01, 1, times=200)
    assert limit.limit > 1.0


def test_quiet_spells_double_it_up_to_all_places():
    limit = ConcurrencyLimit()
    limit.active("digits", 0, most=20, now=0.0)
    limit.active("digits", 0, most=20, now=QUIET_S * 0.9)
    assert limit.limit == 1.0
    limit.active("digits", 0, most=20, now=4.0)
    assert (limit.limit, limit.why, limit.moved_at) == (8.0, "quiet", 4.0)
    limit.active("digits", 0, most=20, now=1e6)
    assert limit.limit == 20.0


def test_a_clock_that_stood_still_divides_nothing_by_zero():
    limit = ConcurrencyLimit()
    learn(limit, 0.0, 1, times=3)
    learn(limit, 0.0, 0, times=3)
    learn(limit, 0.01, 1)
    assert limit.limit >= 1.0


def never_alone() -> ConcurrencyLimit:
    """One core: beside one lesser batch a batch takes 20 ms, and alone it would take 10; it never runs alone."""
    limit = ConcurrencyLimit()
    learn(limit, 0.02, 1, times=40)
    assert limit.ratio == pytest.approx(2.0, rel=0.01)
    return limit


@pytest.mark.parametrize("times", [1, 3, 30])
@pytest.mark.parametrize("stalled_s", [0.2, 2.0])
def test_what_never_runs_alone_is_known_again_after_a_stall(stalled_s, times):
    limit = never_alone()
    learn(limit, stalled_s, 1, times=times)
    learn(limit, 0.02, 1, times=RELEARNED)
    assert limit.ratio == pytest.approx(2.0, rel=0.01)
    learn(limit, 0.03, 2, times=20)
    assert limit.ratio == pytest.approx(3.0, rel=0.1)
    assert limit.limit == 1.0


def test_a_batch_that_runs_alone_after_a_stall_ends_the_doubt():
    limit = opened()
    learn(limit, 1.0, 1)
    learn(limit, 0.01, 0, times=20)
    limit.ratio = 1.0
    learn(limit, 0.01, 3, times=10)
    assert limit.ratio == pytest.approx(1.0, rel=0.05)


def test_a_batch_somewhat_slower_than_sharing_explains_is_no_stall():
    limit = opened()
    learn(limit, 0.02 * (STALL - 0.01), 1)
    learn(limit, 0.01, 3, times=20)
    assert limit.ratio == pytest.approx(1.0, rel=0.1)


def test_keys_that_take_different_times_and_never_run_alone_are_each_found_out():
    limit = ConcurrencyLimit()
    for _ in range(40):
        learn(limit, 0.02, 1)
        limit.learn(Sample("digits", "long", 1, 0.08, 9.0, 1), most=4, now=5.0)
    limit.ratio = 1.0
    learn(limit, 0.02, 3)  # 10 ms alone
    assert limit.ratio == pytest.approx(1 + SMOOTHING * (2 - 1))
    limit.ratio = 1.0
    limit.learn(Sample("digits", "long", 1, 0.08, 9.0, 3), most=4, now=5.0)
    assert limit.ratio == pytest.approx(1 + SMOOTHING * (2 - 1))


@pytest.mark.parametrize(("batches", "ratio"), [(RELEARNED - 1, 4.0), (RELEARNED, 2.0)])
def test_after_a_stall_the_worst_is_taken_for_true_for_so_many_batches_and_no_longer(batches, ratio):
    limit = opened()
    learn(limit, 1.0, 1)
    learn(limit, 0.02, 1, times=batches)
    limit.ratio = 1.0
    learn(limit, 0.02, 3)
    assert limit.ratio == pytest.approx(1 + SMOOTHING * (ratio - 1))


def test_after_a_stall_what_agrees_with_what_was_learned_since_drops_no_other_key():
    limit = opened()
    learn(limit, 1.0, 1)
    learn(limit, 0.02, 1)
    limit.learn(Sample("digits", "long", 1, 0.08, 9.0, 1), most=4, now=5.0)
    learn(limit, 0.02, 1, times=RELEARNED - 2)
    for merge_key, service_s in (("k", 0.02), ("long", 0.08)):
        limit.ratio = 1.0
        limit.learn(Sample("digits", merge_key, 1, service_s, 9.0, 3), most=4, now=5.0)
        assert limit.ratio == pytest.approx(1 + SMOOTHING * (2 - 1))


def test_a_key_that_first_comes_during_the_doubt_drops_no_other():
    limit = opened()
    learn(limit, 1.0, 1)
    learn(limit, 0.02, 1, times=RELEARNED - 1)
    limit.learn(Sample("digits", "long", 1, 0.08, 9.0, 1), most=4, now=5.0)
    limit.ratio = 1.0
    learn(limit, 0.02, 3)
    assert limit.ratio == pytest.approx(1 + SMOOTHING * (2 - 1))
