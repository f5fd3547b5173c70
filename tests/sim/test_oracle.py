import pytest

from simulate.reporting.max_min import max_min_shares
from tests.sim.oracle import burst_s, jain, largest_batch_rows, most_on_time, sfq_lag_s, turn_wait_s


def test_hungry_tenants_share_by_weight():
    assert max_min_shares(8.0, {"a": 99.0, "b": 99.0}, {"a": 1, "b": 3}) == {"a": 2.0, "b": 6.0}


def test_what_a_content_tenant_leaves_goes_to_the_hungry():
    shares = max_min_shares(12.0, {"a": 1.0, "b": 99.0, "c": 3.0}, {"a": 1, "b": 1, "c": 1})
    assert shares == {"a": 1.0, "c": 3.0, "b": 8.0}


def test_everybody_content():
    assert max_min_shares(12.0, {"a": 1.0, "b": 2.0}, {"a": 1, "b": 9}) == {"a": 1.0, "b": 2.0}


def test_closed_forms():
    assert sfq_lag_s({"a": 2.0, "b": 3.0}, {"a": 1, "b": 3}) == 3.0
    assert largest_batch_rows(0.005, 0.002, 0.0501, 32) == 17
    assert largest_batch_rows(0.005, 0.001, 0.0601, 32) == 32
    assert largest_batch_rows(0.1, 0.001, 0.05, 32) == 1
    assert turn_wait_s(1, 16, turn_s=0.01, lesser_turn_s=0.02) == pytest.approx(0.35)
    assert burst_s(100, 60.0, 10.0, 1.0) == 2.0
    assert burst_s(10, 60.0, 10.0, 1.0) == 1.0


def test_what_nobody_could_answer_in_time_is_left_out():
    assert most_on_time([1.0] * 5, 1.0, 2) == 2
    assert most_on_time([0.5, 1.0, 1.0, 2.0, 2.0, 2.0], 1.0, 2) == 4
    assert most_on_time([9.0] * 5, 1.0, 2) == 5


def test_jains_index():
    assert jain([3.0, 3.0, 3.0]) == 1.0
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25
