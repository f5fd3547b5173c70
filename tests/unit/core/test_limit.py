import pytest

from scheduler.core.limit import ERRORS, LEAD_S, in_flight_limit, lead_s, longest_batch_s


@pytest.mark.parametrize("instances", [1, 2, 8])
def test_one_batch_lies_ready_beyond_those_that_run(instances):
    assert in_flight_limit(instances) == instances + 1


def test_the_ready_batch_leaves_earlier_where_the_estimate_is_less_sure():
    assert lead_s(0.0) == LEAD_S
    assert lead_s(0.004) == LEAD_S + ERRORS * 0.004


def test_the_lead_and_the_longest_batch_fit_into_the_wait_together():
    assert longest_batch_s(0.050, 0.003) + lead_s(0.003) == pytest.approx(0.050)


def test_two_batches_of_half_the_wait_always_fit():
    assert longest_batch_s(0.050, 1.0) == 0.025
    assert longest_batch_s(0.002, 0.0) == 0.001
