import pytest

from scheduler.core.limit import LEAD_S, in_flight_limit, longest_batch_s


@pytest.mark.parametrize("instances", [1, 2, 8])
def test_one_batch_lies_ready_beyond_those_that_run(instances):
    assert in_flight_limit(instances) == instances + 1


def test_the_lead_and_the_longest_batch_fit_into_the_wait_together():
    assert longest_batch_s(0.050) + LEAD_S == pytest.approx(0.050)


def test_two_batches_of_half_the_wait_always_fit():
    assert longest_batch_s(0.002) == 0.001
