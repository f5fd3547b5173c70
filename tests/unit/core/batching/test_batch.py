from dataclasses import replace

import pytest

from scheduler.core.backends.backend import ModelCapacity
from scheduler.core.batching.departure import Departure
from scheduler.core.queues.lane import Lane
from scheduler.core.tenants.caps import Tenant
from tests.unit.core.build import class_settings, make_ticket, tenant_settings
from tests.unit.core.learned import ONE, WAIT_S, flat_lane, form, learn_long, learned_lane, push, sizes

# Of a batch of eight, at 5 ms a batch and 5 ms a row.
FULL_S = 0.045


def test_nothing_waits_nothing_goes(lane):
    assert form(lane, ONE) == []


def test_tickets_of_one_key_fill_a_batch_and_the_rest_does_not_wait(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    push(lane, acme, "interactive", 11)
    assert sizes(lane, ONE) == [8, 3]


def test_tickets_without_a_key_ride_alone(lane, acme):
    push(lane, acme, "interactive", 2, merge_key=None)
    push(lane, acme, "interactive", 2)
    assert sizes(lane, ONE) == [1, 1, 2]


def test_where_no_ticket_has_a_key_each_rides_alone(lane, acme):
    push(lane, acme, "interactive", 3, merge_key=None)
    assert sizes(lane, ONE) == [1, 1, 1]


def test_keys_do_not_mix(lane, acme):
    first = push(lane, acme, "interactive", 1) + push(lane, acme, "interactive", 2, merge_key="other")
    first += push(lane, acme, "interactive", 1)
    assert form(lane, ONE) == [first[0], first[3]]
    assert form(lane, ONE) == first[1:3]


def test_a_model_without_a_batch_dimension_takes_one_ticket(lane, acme):
    push(lane, acme, "interactive", 2)
    push(lane, acme, "background", 1)
    assert sizes(lane, ModelCapacity(1, 0)) == [1, 1, 1]


def test_rows_never_exceed_the_models_maximum(lane, acme):
    push(lane, acme, "interactive", 3, rows=3)
    assert sizes(lane, ONE) == [2, 1]


def test_places_of_an_interactive_batch_that_cost_it_time_stay_free(lane, acme):
    # Two rows take 15 ms, a third would make it 20: a third more.
    interactive = push(lane, acme, "interactive", 2)
    push(lane, acme, "background", 9)
    assert form(lane, ONE) == interactive


def test_free_places_of_an_interactive_batch_carry_background(acme):
    # 20 ms a batch and 1 ms a row, as on a GPU: two rows take 22 ms, and 27.5 are allowed: seven rows.
    lane = flat_lane()
    interactive = push(lane, acme, "interactive", 2)
    background = push(lane, acme, "background", 9)
    assert form(lane, ONE) == interactive + background[:5]


def test_free_places_carry_all_they_can_where_nobody_minds_the_wait(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    interactive = push(lane, acme, "interactive", 2)
    background = push(lane, acme, "background", 9)
    assert form(lane, ONE) == interactive + background[:6]


def test_a_full_interactive_batch_carries_no_background(lane, acme):
    push(lane, acme, "interactive", 8)
    push(lane, acme, "background", 5)
    assert {ticket.priority_class for ticket in form(lane, ONE)} == {"interactive"}


def test_free_places_are_those_that_lengthen_a_batch_of_its_own_key_little(acme):
    # Three more rows would be a little longer for `k`, and not for `long`: two rows take 15 ms, a third makes it 20.
    lane = flat_lane()
    learn_long(lane, 0.005, 0.005)
    interactive = push(lane, acme, "interactive", 2, merge_key="long")
    push(lane, acme, "background", 9, merge_key="long")
    assert form(lane, ONE) == interactive


def test_background_in_a_free_place_keeps_to_the_wait_that_holds_for_its_own_batches(acme):
    # Two rows take 33.5 ms, and five a quarter more; but its own batches may take 40.2 ms: four rows.
    lane = flat_lane()
    learn_long(lane, 0.0285, 0.0025)
    interactive = push(lane, acme, "interactive", 2, merge_key="long")
    background = push(lane, acme, "background", 9, merge_key="long")
    assert form(lane, ONE) == interactive + background[:2]


def test_a_class_that_has_had_far_more_than_its_share_still_takes_free_places(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    interactive, background = push(lane, acme, "interactive", 2), push(lane, acme, "background", 9)
    lane.classes[1].start = 1000.0
    assert form(lane, ONE) == interactive + background[:6]


def test_riders_of_a_classs_own_batch_are_no_rides_in_others_and_those_are_charged_in_full(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    background = push(lane, acme, "background", 16)
    assert form(lane, ONE) == background[:8]
    interactive, before = push(lane, acme, "interactive", 1), lane.classes[1].start
    assert form(lane, ONE) == interactive + background[8:15]
    assert lane.classes[1].start - before == pytest.approx(7 / 8 * FULL_S)


def test_the_least_class_lengthens_a_batch_little_where_one_with_a_wait_rides_in_it(acme):
    classes = (class_settings("a", 16, wait_s=WAIT_S), class_settings("b"), class_settings("c"))
    lane = Lane("m", classes)
    for rows in (1, 8) * 10:
        lane.estimator.learn("k", rows, 0.004 + 0.005 * rows)
    a, b, other_b, *least = (make_ticket(name, merge_key="k") for name in "abbccccc")
    for ticket in (a, b, other_b, *least):
        lane.push(ticket, "abc".index(ticket.priority_class), acme)
    lane.classes[0].start, lane.classes[2].start = 1e-6, 1.0
    # Three rows take 19 ms; 23.75 are allowed, and a fourth would make it 24. Six would be in time.
    assert form(lane, ONE) == [b, a, other_b]


def three_classes(*, strict: bool = False) -> Lane:
    """5 ms a batch and 5 ms a row; classes `a`, `b` and `c` of weights 16, 2 and 1."""
    classes = (replace(class_settings("a", 16), strict=strict), class_settings("b", 2), class_settings("c", 1))
    return learned_lane(0.005, 0.005, classes=classes)


@pytest.mark.parametrize(("ahead", "rides"), [(0.99, True), (1.01, False)])
@pytest.mark.parametrize("key", ["k", "other"])
def test_a_lesser_class_leaves_places_free_when_it_is_a_full_batch_ahead_of_another_that_waits(acme, key, ahead, rides):
    lane = three_classes()
    opens, b = push(lane, acme, "a", 1, rows=5), push(lane, acme, "b", 1)
    push(lane, acme, "c", 1, rows=8, merge_key=key)
    lane.classes[1].start = lane.classes[2].start = 1.0
    lane.classes[1].start += ahead * FULL_S / 2
    assert form(lane, ONE) == opens + b * rides


def test_a_lesser_class_rides_until_it_is_a_full_batch_ahead_of_what_is_left_of_the_more_important(acme):
    lane = three_classes()
    push(lane, acme, "a", 9, rows=5)
    push(lane, acme, "c", 99)
    # After nine rows of a full batch it is 50.6 ms ahead of nought, and 45.3 ahead of what `a` has had by its weight.
    assert [len(form(lane, ONE)) - 1 for _ in range(4)] == [3, 3, 3, 0]
    assert lane.classes[2].start == pytest.approx(9 / 8 * FULL_S)


def test_a_class_at_its_caps_is_not_waited_for(acme):
    lane, capped = three_classes(), Tenant("capped", tenant_settings(max_in_flight=1))
    capped.take(make_ticket("c", "capped"))
    opens, b = push(lane, acme, "a", 1, rows=5), push(lane, acme, "b", 9)
    push(lane, capped, "c", 1)
    lane.classes[1].start = 1000.0
    assert form(lane, ONE) == opens + b[:3]


@pytest.mark.parametrize(("key", "riders"), [("k", "ccc"), ("other", "bbb")])
def test_in_a_strict_classs_batch_only_those_that_could_ride_too_are_waited_for(acme, key, riders):
    lane = three_classes(strict=True)
    push(lane, acme, "a", 1, rows=5)
    push(lane, acme, "b", 9)
    push(lane, acme, "c", 9, merge_key=key)
    lane.classes[1].start = 1.0
    assert "".join(ticket.priority_class for ticket in form(lane, ONE)[1:]) == riders


def test_classes_share_the_places_that_a_strict_class_leaves_and_who_comes_next_has_no_credit(acme):
    lane = three_classes(strict=True)
    push(lane, acme, "b", 999)
    push(lane, acme, "c", 999)
    served = ""
    for _ in range(200):
        push(lane, acme, "a", 1, rows=5)
        served += "".join(ticket.priority_class for ticket in form(lane, ONE)[1:])
    assert served.count("b") == pytest.approx(2 * served.count("c"), abs=3 * 8)
    assert lane.virtual.now == min(queue.start for queue in lane.classes[1:])


def test_a_class_above_a_strict_one_rides_in_its_batches_as_far_ahead_as_it_may_be(acme):
    lane = learned_lane(0.005, 0.005, classes=(class_settings("a"), replace(class_settings("b"), strict=True)))
    push(lane, acme, "a", 99)
    push(lane, acme, "b", 9, rows=5)
    lane.classes[0].start = 1e-6
    for _ in range(9):
        assert [ticket.priority_class for ticket in form(lane, ONE)] == ["b", *"aaa"]
    push(lane, acme, "b", 1)  # it joins where the least of those is that wait
    assert [ticket.priority_class for ticket in form(lane, ONE)] == ["b", *"aaaaaaa"]


def test_a_strict_class_that_waits_is_not_waited_for(acme):
    lane = three_classes(strict=True)
    opens, _ = push(lane, acme, "a", 2, rows=5)
    c = push(lane, acme, "c", 3)
    lane.classes[2].start = 1000.0
    assert form(lane, ONE) == [opens, *c]


def test_where_no_other_class_waits_rides_cost_no_more_than_a_full_batch_between_two_turns(acme):
    lane = three_classes()
    push(lane, acme, "c", 99)
    for _ in range(5):
        push(lane, acme, "a", 5)
        assert len(form(lane, ONE)) == 8
    assert lane.classes[2].start == pytest.approx(FULL_S)


@pytest.mark.parametrize("strict", [False, True])
def test_where_nobody_else_could_have_the_places_a_tenant_takes_them_though_others_of_its_class_wait(acme, strict):
    lane, other, third = (
        three_classes(strict=strict),
        Tenant("other", tenant_settings()),
        Tenant("c", tenant_settings()),
    )
    (opens,) = push(lane, acme, "a", 1)
    b = push(lane, acme, "b", 9)
    push(lane, other, "b", 9, merge_key="other")
    if strict:  # who may get no turn at all
        push(lane, third, "c", 9)
        lane.classes[2].start = 1000.0
    lane.classes[1]._flows["acme"].start = 100.0
    assert form(lane, ONE) == [opens, *b[:7]]


def test_a_tenant_that_rides_for_its_class_leaves_turns_to_those_of_its_class_that_cannot(acme):
    lane, other = three_classes(), Tenant("other", tenant_settings())
    push(lane, acme, "b", 99)
    push(lane, other, "b", 99, merge_key="other")
    served = {"acme": 0, "other": 0}
    for _ in range(60):
        push(lane, acme, "a", 1)
        push(lane, acme, "a", 8, merge_key="busy")
        for ticket in form(lane, ONE):
            served[ticket.tenant] += ticket.priority_class == "b"
    assert served["other"] >= served["acme"] - 2 * 8 > 0


def test_tenants_pay_for_their_rows_of_the_batch_as_it_is():
    lane = learned_lane(0.005, 0.005, wait_s=None)
    first, second = Tenant("first", tenant_settings()), Tenant("second", tenant_settings(weight=2))
    push(lane, first, "interactive", 2, rows=3)
    push(lane, second, "interactive", 5, rows=2)
    assert [ticket.rows for ticket in form(lane, ONE)] == [3, 2, 2]  # 40 ms
    flows = lane.classes[0]._flows
    assert flows["first"].start == pytest.approx(3 / 7 * 0.040)
    assert flows["second"].start == pytest.approx(4 / 7 * 0.040 / 2)
    assert lane.classes[0].start == pytest.approx(0.040 / 16)


def turn_of_background(lane: Lane) -> None:
    """Interactive has just had a little more than its share."""
    lane.classes[0].start = 1e-6


def test_a_background_batch_takes_interactive_tickets_of_its_key_first_and_then_all_it_may(acme):
    lane = flat_lane()
    background = push(lane, acme, "background", 9)
    interactive = push(lane, acme, "interactive", 1)
    turn_of_background(lane)
    assert form(lane, ONE) == [background[0], interactive[0], *background[1:7]]


def test_what_rides_in_a_lesser_batch_pays_for_all_of_it(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    for turn in range(3):
        push(lane, acme, "background", 1)
        push(lane, acme, "interactive", 6)
        lane.classes[1].start = 0.0
        lane.classes[0].start = before = 1e-6 * (turn + 1)
        assert len(form(lane, ONE)) == 7
        assert lane.classes[0].start - before == pytest.approx(6 / 7 * 0.040 / 16)


def test_a_class_that_is_a_full_batch_ahead_leaves_a_lesser_one_its_turn(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    background = push(lane, acme, "background", 20)
    push(lane, acme, "interactive", 20)
    lane.classes[0].start = FULL_S / 16 * 1.01
    assert form(lane, ONE) == background[:8]


def test_a_class_that_is_less_than_a_full_batch_ahead_still_rides(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    background = push(lane, acme, "background", 20)
    interactive = push(lane, acme, "interactive", 20)
    lane.classes[0].start = FULL_S / 16 * 0.99
    assert form(lane, ONE) == [background[0], interactive[0], *background[1:7]]


def test_each_key_is_charged_and_bounded_by_what_its_own_rows_take(acme):
    """35 ms are three rows of 10 ms, where the model's usual ones take 1 ms."""
    lane = learned_lane(0.005, 0.001)
    learn_long(lane, 0.005, 0.010)
    push(lane, acme, "background", 9, merge_key="long")
    assert len(form(lane, ONE)) == 3
    assert lane.classes[1].start == pytest.approx(0.035)


def test_a_rider_that_does_not_fit_keeps_its_turn_while_a_smaller_one_takes_the_place(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    first, large, small, last = (Tenant(name, tenant_settings()) for name in "abcd")
    opens = push(lane, first, "interactive", 1, rows=5)
    waits = push(lane, large, "interactive", 1, rows=4)
    rides = push(lane, small, "interactive", 1, rows=3)
    later = push(lane, last, "interactive", 1, rows=1)
    assert form(lane, ONE) == opens + rides
    assert form(lane, ONE) == waits + later


def test_a_rider_that_does_not_fit_keeps_its_turn_also_while_another_key_waits():
    lane = learned_lane(0.005, 0.005, wait_s=None)
    first, large, small = (Tenant(name, tenant_settings()) for name in "abc")
    opens = push(lane, first, "interactive", 1, rows=5)
    waits = push(lane, large, "interactive", 1, rows=4)
    rides = push(lane, small, "interactive", 1, rows=3)
    other = push(lane, small, "interactive", 1, merge_key="other")
    assert [form(lane, ONE) for _ in range(3)] == [opens + rides, waits, other]


def test_the_second_that_does_not_fit_ends_the_filling():
    lane = learned_lane(0.005, 0.005, wait_s=None)
    tenants = [Tenant(name, tenant_settings()) for name in "abcd"]
    (a,), (b,), (c,), (d,) = (
        push(lane, tenant, "interactive", 1, rows=rows) for tenant, rows in zip(tenants, (5, 4, 4, 1), strict=True)
    )
    assert form(lane, ONE) == [a]
    assert form(lane, ONE) == [b, c]
    assert form(lane, ONE) == [d]


@pytest.mark.parametrize(("ahead_rows", "riders"), [(3.5, 2), (4.5, 1)])
def test_smaller_ones_pass_one_that_does_not_fit_by_no_more_than_a_full_batch_by_their_weight(ahead_rows, riders):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    row_s, flows = lane.estimator.line("k").row_s, lane.classes[0]._flows
    opens, large, small = (Tenant(name, tenant_settings(weight)) for name, weight in zip("abc", (1, 1, 2), strict=True))
    push(lane, opens, "interactive", 1)
    push(lane, large, "interactive", 1, rows=8)
    push(lane, small, "interactive", 1)
    for name, start in (("b", 2 * row_s), ("c", (2 + ahead_rows) * row_s)):
        flows[name].start = flows[name].place = start
    assert len(form(lane, ONE)) == riders
    assert [ticket.rows for ticket in form(lane, ONE)] == [8]  # whoever was passed is next


def test_a_tenants_own_tickets_keep_their_order_though_one_does_not_fit(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    push(lane, acme, "interactive", 1, rows=5)
    push(lane, acme, "interactive", 1, rows=4)
    push(lane, acme, "interactive", 1, rows=3)
    assert sizes(lane, ONE) == [1, 2]


def test_riding_stops_at_the_tenants_cap(lane):
    capped, other = Tenant("capped", tenant_settings(max_in_flight=2)), Tenant("other", tenant_settings())
    push(lane, capped, "interactive", 5)
    push(lane, other, "interactive", 1)
    batch = form(lane, ONE)
    assert sorted(ticket.tenant for ticket in batch) == ["capped", "capped", "other"]
    assert form(lane, ONE) == []


def test_each_ticket_is_charged_to_its_own_class_and_tenant(acme):
    lane = flat_lane()
    other = Tenant("other", tenant_settings(weight=2))
    push(lane, acme, "interactive", 1)
    push(lane, other, "background", 2)
    form(lane, ONE)
    # Three rows take 23 ms.
    assert lane.classes[0].start == pytest.approx(0.023 / 3 / 16)
    assert lane.classes[1].start == pytest.approx(2 * 0.023 / 3)
    assert lane.classes[1].virtual.latest == pytest.approx(2 * 0.023 / 3 / 2)


def test_the_ticket_that_opens_a_batch_moves_its_classs_virtual_time_and_riders_do_not(acme):
    lane, other = learned_lane(0.005, 0.005, wait_s=None), Tenant("other", tenant_settings())
    push(lane, acme, "interactive", 3, rows=5)
    push(lane, other, "interactive", 3)
    assert [ticket.rows for ticket in form(lane, ONE)] == [5, 1, 1, 1]
    assert lane.classes[0].virtual.now == 0.0
    assert len(form(lane, ONE)) == 1
    assert lane.classes[0].virtual.now == pytest.approx(5 / 8 * FULL_S)


def test_a_ticket_that_rides_alone_is_charged_the_whole_batch(lane, acme):
    push(lane, acme, "interactive", 1, merge_key=None, rows=4)
    form(lane, ONE)
    assert lane.classes[0].start == pytest.approx(0.025 / 16)


def test_a_retry_goes_alone_and_its_class_pays(lane, acme):
    retry = make_ticket("background", merge_key="k")
    lane.retry(retry, 1)
    push(lane, acme, "background", 2)
    assert form(lane, ONE) == [retry]
    assert lane.classes[1].start == pytest.approx(0.010)
    assert sizes(lane, ONE) == [2]


def test_tenants_that_cannot_ride_are_served_though_others_of_their_class_ride_in_every_batch(lane, acme):
    rider, other = Tenant("rider", tenant_settings()), Tenant("other", tenant_settings())
    push(lane, rider, "background", 5000)
    push(lane, other, "background", 50, merge_key="other")
    before_background = []
    for batch in range(400):
        push(lane, acme, "interactive", 1)
        push(lane, acme, "interactive", 2, merge_key="busy")
        if any(ticket.tenant == "other" for ticket in form(lane, ONE)):
            before_background.append(batch)
    assert len(before_background) >= 5
    assert before_background[0] <= 200


def departs_at(start_at: float, lane: Lane) -> Departure:
    """A batch of up to eight that starts then; whoever is late leaves the lane."""
    line = lane.estimator.line("k")
    queue = lane.classes[0]
    return Departure(start_at, line, 8, lambda ticket: queue.queued, queue.remove, lambda *_: start_at, crowded=True)


def test_who_would_end_too_late_does_not_ride_and_the_next_one_does(lane, acme):
    first, late, next_one = push(lane, acme, "interactive", 3)
    late.deadline = 1.0
    assert form(lane, ONE, departs_at(0.99, lane)) == [first, next_one]
    assert not lane.classes[0].queued


def test_who_would_end_too_late_behind_those_in_the_batch_does_not_ride_though_alone_it_would_make_it(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    (opens,), (late,) = push(lane, acme, "interactive", 1, rows=5), push(lane, acme, "interactive", 1)
    late.deadline = 1.020  # six rows take 35 ms
    assert form(lane, ONE, departs_at(1.0, lane)) == [opens]
    assert not lane.classes[0].queued


def test_a_batch_grows_no_longer_than_those_in_it_can_bear(acme):
    """5 ms a row and hardly anything a batch: small ones cost nothing."""
    lane = learned_lane(0.0001, 0.005, wait_s=None)
    first, second, *others = push(lane, acme, "interactive", 8)
    first.deadline, second.deadline = 1.035, 1.024
    assert form(lane, ONE, departs_at(1.0, lane)) == [first, second, *others[:2]]
    assert lane.classes[0].queued == 4


class TestRidersOfAnotherKey:
    @staticmethod
    def lane() -> Lane:
        return learned_lane(0.005, 0.005, wait_s=None)

    def test_a_rider_that_is_a_full_batch_ahead_of_another_key_ends_the_filling(self):
        lane = self.lane()
        rider, other, small = (Tenant(name, tenant_settings()) for name in ("rider", "other", "small"))
        push(lane, rider, "interactive", 30)
        push(lane, other, "interactive", 8, merge_key="other")
        assert {ticket.tenant for ticket in form(lane, ONE)} == {"rider"}
        lane.classes[0]._flows["rider"].start += lane.estimator.line("k").row_s
        first = push(lane, small, "interactive", 1)
        lane.classes[0]._flows["other"].place += 1e-6  # the small one opens
        assert form(lane, ONE) == first
        assert {ticket.tenant for ticket in form(lane, ONE)} == {"other"}

    def test_two_that_cannot_ride_together_both_fill_their_batches(self):
        lane = self.lane()
        light, heavy = Tenant("light", tenant_settings()), Tenant("heavy", tenant_settings(weight=3))
        push(lane, light, "interactive", 16)
        push(lane, heavy, "interactive", 48, merge_key="other")
        assert sizes(lane, ONE) == [8] * 8

    def test_with_one_key_the_batches_are_full_whoever_is_ahead(self):
        lane = self.lane()
        ahead, small = Tenant("ahead", tenant_settings()), Tenant("small", tenant_settings())
        push(lane, ahead, "interactive", 30)
        lane.classes[0]._flows["ahead"].start = 100.0
        push(lane, small, "interactive", 1)
        assert sizes(lane, ONE) == [8, 8, 8, 7]


class TestGuest:
    """A tenant that has just come to its class, beside one that sends more: a row takes 5 ms, and a batch 5 more."""

    @staticmethod
    def turns(lane):
        """Tenants of the next batch, in order."""
        return [ticket.tenant for ticket in form(lane, ONE)]

    @staticmethod
    def loud_lane(acme, a=0.005, b=0.005, wait_s=0.5, tickets=20):
        """A lane where acme waits with so many tickets, and has had a turn."""
        lane = learned_lane(a, b, wait_s=wait_s)
        push(lane, acme, "interactive", tickets + 8)
        form(lane, ONE)
        return lane

    def test_another_tenant_has_no_more_rows_than_the_guest_but_for_what_half_of_the_rate_takes(self, acme):
        lane = self.loud_lane(acme)
        push(lane, Tenant("quiet", tenant_settings()), "interactive", 1)
        # Two rows are the least that serve more than half as fast as eight: 15 ms, where eight take 45.
        assert self.turns(lane) == ["quiet", "acme"]
        assert self.turns(lane) == ["acme"] * 8

    def test_others_ride_as_far_as_they_lengthen_the_batch_by_little(self, acme):
        lane = self.loud_lane(acme, a=0.020, b=0.001)
        push(lane, Tenant("quiet", tenant_settings()), "interactive", 1)
        assert self.turns(lane) == ["quiet"] + ["acme"] * 6

    def test_tenants_that_have_all_just_come_ride_together(self, acme):
        lane = learned_lane(0.005, 0.005, wait_s=0.5)
        for name in "abcdefgh":
            push(lane, Tenant(name, tenant_settings()), "interactive", 1)
        assert self.turns(lane) == list("abcdefgh")

    def test_where_the_guest_has_many_rows_others_have_as_many(self, acme):
        lane = self.loud_lane(acme)
        push(lane, Tenant("quiet", tenant_settings()), "interactive", 4)
        assert sorted(self.turns(lane)) == ["acme"] * 4 + ["quiet"] * 4

    def test_in_a_class_without_a_wait_batches_are_full(self, acme):
        lane = self.loud_lane(acme, wait_s=None)
        push(lane, Tenant("quiet", tenant_settings()), "interactive", 1)
        assert self.turns(lane) == ["quiet"] + ["acme"] * 7
