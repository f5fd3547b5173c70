import pytest

from scheduler.core.backends.limit import in_flight_limit, lead_s, longest_batch_s


@pytest.mark.parametrize("instances", [1, 2, 8])
def test_one_batch_lies_ready_beyond_those_that_run(instances):
    assert in_flight_limit(instances) == instances + 1


@pytest.mark.parametrize("wait_s", [0.002, 0.005, 0.020, 0.050])
def test_the_lead_and_the_longest_batch_fit_into_the_wait_together(wait_s):
    assert longest_batch_s(wait_s) + lead_s(wait_s) == pytest.approx(wait_s)


@pytest.mark.parametrize(("wait_s", "lead"), [(0.020, 0.004), (0.100, 0.020), (0.005, 0.002), (0.002, 0.001)])
def test_the_lead_is_a_part_of_the_wait_but_never_shorter_than_the_way_to_an_instance_nor_longer_than_half(
    wait_s, lead
):
    assert lead_s(wait_s) == pytest.approx(lead)
