import pytest

from tests.sim.oracle import largest_batch_rows, max_min_shares, rows_per_s, sfq_lag_s


def test_hungry_tenants_share_by_weight():
    assert max_min_shares(8.0, {"a": 99.0, "b": 99.0}, {"a": 1, "b": 3}) == {"a": 2.0, "b": 6.0}


def test_what_a_content_tenant_leaves_goes_to_the_hungry():
    shares = max_min_shares(12.0, {"a": 1.0, "b": 99.0, "c": 3.0}, {"a": 1, "b": 1, "c": 1})
    assert shares == {"a": 1.0, "c": 3.0, "b": 8.0}


def test_everybody_content():
    assert max_min_shares(12.0, {"a": 1.0, "b": 2.0}, {"a": 1, "b": 9}) == {"a": 1.0, "b": 2.0}


def test_closed_forms():
    assert sfq_lag_s({"a": 2.0, "b": 3.0}, {"a": 1, "b": 3}) == 3.0
    assert largest_batch_rows(0.005, 0.002, 0.0501, 32) == 21
    assert largest_batch_rows(0.005, 0.001, 0.0501, 32) == 32
    assert largest_batch_rows(0.1, 0.001, 0.05, 32) == 1
    assert rows_per_s(0.005, 0.001, 5, 2) == pytest.approx(1000)
