import pytest

from scheduler.core.limit import batches_ahead, in_flight_limit


@pytest.mark.parametrize("instances", [1, 2, 8])
def test_one_batch_lies_ready_beyond_those_that_run(instances):
    assert in_flight_limit(instances) == instances + 1


@pytest.mark.parametrize(("instances", "lengths"), [(1, 2), (2, 1), (8, 1)])
def test_an_arrival_waits_for_two_endings(instances, lengths):
    # All instances have just taken a batch of length 1 and one more lies ready; instances take in order.
    free_at = sorted([1.0] * instances)
    free_at[0] += 1.0
    assert batches_ahead(instances) == lengths == min(free_at)
