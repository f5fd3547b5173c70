import pytest

from scheduler.core import batch as batching
from scheduler.core.backend import ModelCapacity
from scheduler.core.caps import Tenant
from scheduler.core.departure import Departure
from scheduler.core.lane import Lane
from scheduler.core.ticket import Ticket
from tests.unit.core.build import class_settings, make_ticket, tenant_settings

WAIT_S = 0.0503
ONE, TWO = ModelCapacity(1, 8), ModelCapacity(2, 8)


def learned_lane(a: float, b: float, wait_s: float | None = WAIT_S) -> Lane:
    """Learned, of key `k` and of the model: `a` seconds a batch and `b` a row."""
    lane = Lane("m", (class_settings("interactive", 16, wait_s=wait_s), class_settings("background", 1)))
    for rows in (1, 8) * 10:
        lane.estimator.learn("k", rows, a + b * rows)
    return lane


def flat_lane() -> Lane:
    """Batches that take little longer with more rows: 20 ms a batch and 1 ms a row."""
    return learned_lane(0.020, 0.001)


def form(lane: Lane, capacity: ModelCapacity, departure: Departure | None = None) -> list[Ticket]:
    """The next batch, on a backend of which the lane's own estimates hold."""
    turn = lane.next_turn()
    return [] if turn is None else batching.form(lane, turn, capacity, lane.estimator, departure)


@pytest.fixture
def lane() -> Lane:
    """Learned: 5 ms a batch and 5 ms a row."""
    return learned_lane(0.005, 0.005)


@pytest.fixture
def acme() -> Tenant:
    return Tenant("acme", tenant_settings())


def push(lane: Lane, tenant: Tenant, priority_class: str, count: int, **others: object) -> list[Ticket]:
    rank = {"interactive": 0, "background": 1}[priority_class]
    tickets = [make_ticket(priority_class, tenant.name, **{"merge_key": "k"} | others) for _ in range(count)]
    for ticket in tickets:
        lane.push(ticket, rank, tenant)
    return tickets


def sizes(lane: Lane, capacity: ModelCapacity) -> list[int]:
    return [len(tickets) for tickets in iter(lambda: form(lane, capacity), [])]


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
    # 60 ms a batch and 1 ms a row: 8 rows in 68 ms, and 4 in 64 is the least that is more than half as fast.
    lane = learned_lane(0.060, 0.001)
    push_shared(lane, acme)
    assert sizes(lane, ONE) == [4, 4]
    push(lane, acme, "background", 2)
    assert sizes(lane, ONE) == [1, 1]


def test_before_the_first_answer_a_batch_of_the_most_important_class_is_full(acme):
    lane = Lane("m", (class_settings("interactive", wait_s=WAIT_S),))
    push(lane, acme, "interactive", 9)
    assert sizes(lane, ONE) == [8, 1]


def test_without_a_bound_above_batches_are_full(acme):
    lane = Lane("m", (class_settings("interactive"), class_settings("background")))
    push(lane, acme, "background", 9)
    assert sizes(lane, ONE) == [8, 1]


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


def learn_long(lane: Lane, a: float, b: float) -> None:
    """Of key `long`: `a` seconds a batch and `b` a row."""
    for rows in (1, 8) * 10:
        lane.estimator.learn("long", rows, a + b * rows)


def test_free_places_are_those_that_lengthen_a_batch_of_its_own_key_little(acme):
    # Three more rows would be a little longer for `k`, and not for `long`: two rows take 15 ms, a third makes it 20.
    lane = flat_lane()
    learn_long(lane, 0.005, 0.005)
    interactive = push(lane, acme, "interactive", 2, merge_key="long")
    push(lane, acme, "background", 9, merge_key="long")
    assert form(lane, ONE) == interactive


def test_background_in_a_free_place_keeps_to_the_wait_that_holds_for_its_own_batches(acme):
    # One row takes 36 ms, and four would take a quarter more; but 40.2 ms are allowed, which is two rows.
    lane = flat_lane()
    learn_long(lane, 0.033, 0.003)
    interactive = push(lane, acme, "interactive", 1, merge_key="long")
    background = push(lane, acme, "background", 9, merge_key="long")
    assert form(lane, ONE) == [*interactive, background[0]]


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
    assert lane.classes[1].start - before == pytest.approx(7 * lane.estimator.line("k").row_s)


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
    row_s = lane.estimator.line("k").row_s
    for turn in range(3):
        push(lane, acme, "background", 1)
        push(lane, acme, "interactive", 6)
        lane.classes[1].start = 0.0
        lane.classes[0].start = before = 1e-6 * (turn + 1)
        assert len(form(lane, ONE)) == 7
        assert lane.classes[0].start - before == pytest.approx(6 * row_s / 16)


def test_a_class_that_is_a_full_batch_ahead_leaves_a_lesser_one_its_turn(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    full_batch_s = 8 * lane.estimator.line("k").row_s
    background = push(lane, acme, "background", 20)
    push(lane, acme, "interactive", 20)
    lane.classes[0].start = full_batch_s / 8 + full_batch_s / 16 * 1.01  # a row of background is paid already
    assert form(lane, ONE) == background[:8]


def test_a_class_that_is_less_than_a_full_batch_ahead_still_rides(acme):
    lane = learned_lane(0.005, 0.005, wait_s=None)
    full_batch_s = 8 * lane.estimator.line("k").row_s
    background = push(lane, acme, "background", 20)
    interactive = push(lane, acme, "interactive", 20)
    lane.classes[0].start = full_batch_s / 8 + full_batch_s / 16 * 0.99
    assert form(lane, ONE) == [background[0], interactive[0], *background[1:7]]


def test_each_key_is_charged_and_bounded_by_what_its_own_rows_take(acme):
    """35 ms are three rows of 10 ms, where the model's usual ones take 1 ms."""
    lane = learned_lane(0.005, 0.001)
    learn_long(lane, 0.005, 0.010)
    push(lane, acme, "background", 9, merge_key="long")
    assert len(form(lane, ONE)) == 3
    assert lane.classes[1].start == pytest.approx(3 * lane.estimator.line("long").row_s)


def test_the_wait_of_its_own_class_bounds_a_batch_by_what_rows_of_its_own_key_take(acme):
    lane = learned_lane(0.005, 0.001)
    learn_long(lane, 0.005, 0.010)
    push_shared(lane, acme, merge_key="long")
    assert sizes(lane, ONE) == [3, 3, 2]


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
    row_s = lane.estimator.line("k").row_s
    push(lane, acme, "interactive", 1)
    push(lane, other, "background", 2)
    form(lane, ONE)
    assert lane.classes[0].start == pytest.approx(row_s / 16)
    assert lane.classes[1].start == pytest.approx(2 * row_s)
    assert lane.classes[1].virtual.latest == pytest.approx(2 * row_s / 2)


def test_the_ticket_that_opens_a_batch_moves_its_classs_virtual_time_and_riders_do_not(acme):
    lane, other = learned_lane(0.005, 0.005, wait_s=None), Tenant("other", tenant_settings())
    row_s = lane.estimator.line("k").row_s
    push(lane, acme, "interactive", 3, rows=5)
    push(lane, other, "interactive", 3)
    assert [ticket.rows for ticket in form(lane, ONE)] == [5, 1, 1, 1]
    assert lane.classes[0].virtual.now == 0.0
    assert len(form(lane, ONE)) == 1
    assert lane.classes[0].virtual.now == pytest.approx(5 * row_s)


def test_a_ticket_that_rides_alone_is_charged_the_whole_batch(lane, acme):
    push(lane, acme, "interactive", 1, merge_key=None, rows=4)
    form(lane, ONE)
    assert lane.classes[0].start == pytest.approx(0.025 / 16)


def test_a_retry_goes_alone_and_its_class_pays(lane, acme):
    retry = make_ticket("background", merge_key="k")
    lane.retry(retry, 1)
    push(lane, acme, "background", 2)
    assert form(lane, ONE) == [retry]
    assert lane.classes[1].start == pytest.approx(lane.estimator.line("k").row_s)
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
    return Departure(start_at, line, 8, lambda ticket: lane.classes[0].queued, lane.classes[0].remove)


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
    lane = learned_lane(0.2, 0.001)
    push(lane, acme, "background", 1)
    form(lane, ONE)
    assert lane.classes[1].usual[0] == 1
