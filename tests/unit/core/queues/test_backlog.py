import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.queues.backlog import Backlog


@given(
    st.lists(st.tuples(st.integers(0, 300), st.sampled_from([0.3, 1.0, 4.0])), max_size=30),
    st.floats(0.01, 500),
)
def test_the_backlog_served_is_within_one_step_of_the_exact_sum_and_never_less(tenants, level):
    backlog = Backlog()
    for rows, weight in tenants:
        backlog.change(0, rows // 2, weight)
        backlog.change(rows // 2, rows, weight)
    exact = sum(min(rows, level * weight) for rows, weight in tenants)
    assert exact - 1e-6 <= backlog.served(level) <= 2 * exact + 1e-6
    assert backlog.rows == sum(rows for rows, _ in tenants)


def test_a_backlog_that_has_gone_leaves_nothing():
    backlog, tenants = Backlog(), ((7, 0.1), (14, 0.2), (21, 0.3), (7, 10.0))
    for rows, weight in tenants:
        backlog.change(0, rows, weight)
    for rows, weight in tenants:
        backlog.change(rows, 0, weight)
    assert [backlog.rows, *(backlog.served(level) for level in (0.001, 0.5, 1e9))] == [0, 0, 0, 0]


def test_a_tenant_with_less_than_a_row_for_a_unit_of_its_weight_counts_for_its_weight():
    backlog = Backlog()
    backlog.change(0, 7, 10.0)
    assert [backlog.served(level) for level in (0.25, 0.5, 1.0)] == [2.5, 5.0, 7]


def test_weights_beyond_all_measure_are_counted_in_the_first_and_the_last_step():
    backlog = Backlog()
    backlog.change(0, 1, 1e12)
    backlog.change(0, 100, 1.0)
    backlog.change(0, 3 * 10**9, 1.0)
    backlog.change(0, 10**12, 1e-3)
    assert backlog.served(1e-10) == pytest.approx(1)
    assert backlog.served(1e30) == 10**12 + 3 * 10**9 + 101


def test_a_backlog_that_grows_within_one_step_keeps_its_weight():
    backlog = Backlog()
    backlog.change(0, 9, 1.0)
    backlog.change(9, 10, 1.0)
    backlog.change(10, 11, 1.0)
    assert (backlog.rows, backlog.served(5.0), backlog.served(100.0)) == (11, 5.0, 11)
