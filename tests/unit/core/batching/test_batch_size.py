import pytest

from scheduler.core.backends.backend import ModelCapacity
from scheduler.core.queues.lane import Lane
from scheduler.core.tenants.caps import Tenant
from tests.unit.core.build import class_settings, tenant_settings
from tests.unit.core.learned import ONE, TWO, WAIT_S, form, learn_long, learned_lane, push, sizes


def test_a_ticket_larger_than_its_bound_goes_alone(lane, acme):
    push(lane, acme, "background", 2, rows=7)
    assert sizes(lane, ONE) == [1, 1]


@pytest.mark.parametrize("capacity", [ONE, TWO])
def test_a_background_batch_lasts_no_longer_than_the_interactive_wait_allows(lane, acme, capacity):
    # 50.3 ms less a lead of 10.1: 40.2 = 5 + 7 * 5 and a little, so seven rows.
    push(lane, acme, "background", 16)
    assert sizes(lane, capacity)[0] == 7


def push_shared(lane: Lane, tenant: Tenant, **others: object) -> None:
    """Eight interactive tickets, half of them another tenant's."""
    push(lane, tenant, "interactive", 4, **others)
    push(lane, Tenant("other", tenant_settings()), "interactive", 4, **others)


def test_an_interactive_batch_lasts_no_longer_than_the_wait_of_its_own_class_allows(lane, acme):
    push_shared(lane, acme)
    assert sizes(lane, ONE) == [7, 1]


def test_a_tenant_that_has_its_class_to_itself_fills_its_batches(lane, acme):
    push(lane, acme, "interactive", 8)
    assert sizes(lane, ONE) == [8]


def test_its_own_wait_costs_a_class_no_more_than_half_of_the_full_rate(acme):
    # 45 ms a batch and 30 a row: 8 rows in 285 ms, and 2 in 105 is the least that is more than half as fast.
    lane = learned_lane(0.045, 0.030)
    push_shared(lane, acme)
    assert sizes(lane, ONE) == [2, 2, 2, 2]
    push(lane, acme, "background", 2)
    assert sizes(lane, ONE) == [1, 1]


def test_where_one_row_takes_as_long_as_many_no_wait_makes_batches_small(acme):
    lane = learned_lane(0.060, 0.001)
    push_shared(lane, acme)
    assert sizes(lane, ONE) == [8]
    push(lane, acme, "background", 9)
    assert sizes(lane, ONE) == [8, 1]


def test_where_nobody_has_come_for_long_a_batch_may_take_a_tenth_of_that_time(lane, acme):
    lane.heard(0, 1, now=100.0)
    for now, rows in ((101.0, 7), (102.0, 7), (102.1, 8)):
        push(lane, acme, "background", 8)
        lane.pass_time(now=now)
        assert sizes(lane, ONE)[0] == rows
    slow = learned_lane(0.1, 0.1)
    slow.heard(0, 1, now=100.0)
    # A tenth of 10 s, less the lead: 800 ms are 7 rows.
    push(slow, acme, "background", 8)
    slow.pass_time(now=110.1)
    assert sizes(slow, ONE)[0] == 7


def test_a_class_that_nobody_has_used_bounds_nothing(acme):
    lane = learned_lane(0.1, 0.1)
    lane.pass_time(now=1.0)
    push(lane, acme, "background", 8)
    assert sizes(lane, ONE) == [8]


def test_while_somebody_of_the_class_above_waits_its_wait_holds(lane, acme):
    lane.heard(0, 1, now=100.0)
    push(lane, acme, "interactive", 1, merge_key="other")
    push(lane, acme, "background", 8)
    lane.pass_time(now=200.0)
    assert sizes(lane, ONE) == [1, 7, 1]


def test_before_the_first_answer_a_batch_of_the_most_important_class_is_full(acme):
    lane = Lane("m", (class_settings("interactive", wait_s=WAIT_S),))
    push(lane, acme, "interactive", 9)
    assert sizes(lane, ONE) == [8, 1]


def test_without_a_bound_above_batches_are_full(acme):
    lane = Lane("m", (class_settings("interactive"), class_settings("background")))
    push(lane, acme, "background", 9)
    assert sizes(lane, ONE) == [8, 1]


def test_the_wait_of_its_own_class_bounds_a_batch_by_what_rows_of_its_own_key_take(acme):
    lane = learned_lane(0.005, 0.001)
    learn_long(lane, 0.005, 0.010)
    push_shared(lane, acme, merge_key="long")
    assert sizes(lane, ONE) == [3, 3, 2]


def test_what_a_class_has_in_a_batch_under_a_backlog_is_what_its_waits_allow(lane, acme):
    other = Tenant("other", tenant_settings())
    push(lane, acme, "interactive", 1)
    push(lane, other, "interactive", 1)
    push(lane, acme, "background", 1)
    assert [queue.usual for queue in lane.classes] == [None, None]
    form(lane, ONE)
    form(lane, ONE)
    # 40 ms is seven rows, also where one alone was in the batch; they cost 5 ms each, and a seventh of the constant.
    push(lane, acme, "background", 1)
    form(lane, ONE)
    assert [queue.usual for queue in lane.classes] == [(7, pytest.approx(0.040 / 7))] * 2


def test_without_a_wait_or_with_sizes_that_were_never_tried_it_is_a_full_batch(acme):
    for lane in (learned_lane(0.005, 0.005, wait_s=None), learned_lane(0.001, 0.001)):
        push(lane, acme, "background", 1)
        form(lane, ModelCapacity(1, 32))
        assert lane.classes[1].usual[0] == 32


def test_of_a_model_without_a_batch_dimension_it_is_one_row(lane, acme):
    push(lane, acme, "background", 1)
    form(lane, ModelCapacity(1, 0))
    assert lane.classes[1].usual == (1, pytest.approx(lane.estimator.line(None).row_s))


def test_a_batch_that_takes_longer_than_every_wait_is_usually_one_row(acme):
    lane = learned_lane(0.2, 0.1)
    push(lane, acme, "background", 1)
    form(lane, ONE)
    assert lane.classes[1].usual[0] == 1
