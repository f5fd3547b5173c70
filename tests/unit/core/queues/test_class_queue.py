import pytest

from scheduler.core.queues import class_queue
from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.queues.share import VirtualTime
from scheduler.core.ticket import TicketState
from tests.unit.core.build import BACKGROUND, class_settings, make_ticket, tenant_settings
from tests.unit.core.filled_queues import lift_cap, push, take_first, take_rider, tenant


def test_pushing_and_taking_keep_the_counts(queue):
    owner = tenant()
    ticket = push(queue, owner)
    assert (queue.queued, owner.queued, owner.queue_bytes, owner.in_flight) == (1, 1, 10, 0)
    assert (ticket.state, ticket.holder) == (TicketState.QUEUED, owner)
    assert take_first(queue) is ticket
    assert (queue.queued, owner.queued, owner.queue_bytes, owner.in_flight) == (0, 0, 0, 1)
    assert ticket.state is TicketState.IN_FLIGHT
    assert queue.first() is None


def test_what_a_tenant_has_waiting_adds_up(queue):
    owner = tenant()
    push(queue, owner)
    push(queue, owner)
    assert (queue.queued, owner.queued, owner.queue_bytes) == (2, 2, 20)


def test_a_ticket_knows_where_virtual_time_stood_when_it_came_and_where_its_tenant_was_when_it_was_taken(queue):
    owner = tenant()
    first, second = push(queue, owner), push(queue, owner)
    for _ in range(2):
        take_first(queue, cost_s=3.0)
    last = push(queue, owner)
    assert [ticket.queued_tag for ticket in (first, second, last)] == [0.0, 0.0, 6.0]
    assert [ticket.start_tag for ticket in (first, second)] == [0.0, 3.0]


def test_the_second_place_of_who_has_just_come_is_a_tenth_of_its_cost_before_its_tag_by_its_weight(queue):
    owner, places = tenant(weight=4), []
    for _ in range(4):
        push(queue, owner)
    for _ in range(3):
        take_first(queue, cost_s=2.0)
        flow, _ = queue.first()
        places.append((flow.start, flow.place))
    assert places == [(0.5, pytest.approx(0.45)), (1.0, 1.0), (1.5, 1.5)]


def test_a_tenant_keeps_its_place_when_one_of_its_tickets_leaves(queue):
    owner = tenant()
    tickets = [push(queue, owner) for _ in range(3)]
    take_first(queue)
    queue.remove(tickets[2])
    assert queue.first()[0].place == pytest.approx(0.9)


def test_removing_frees_the_place_and_takes_nothing_in_flight(queue):
    owner = tenant()
    ticket = push(queue, owner, "k")
    queue.remove(ticket)
    assert (queue.queued, owner.queued, owner.queue_bytes, owner.in_flight) == (0, 0, 0, 0)
    assert ticket.state is TicketState.ENDED
    assert queue.first() is None
    assert queue.first_of("k") is None


def test_the_wait_of_a_class_protects_tenants_that_share_it_until_one_was_alone_for_long(monkeypatch):
    monkeypatch.setattr(class_queue, "ALONE_BATCHES", 2)
    queue = ClassQueue("m", class_settings("interactive", wait_s=0.02), rank=0)
    owner = tenant()
    push(queue, owner)
    assert queue.own_wait_s is None
    push(queue, tenant("other"))
    assert queue.own_wait_s == 0.02
    push(queue, tenant("other"))
    take_first(queue)
    assert queue.own_wait_s == 0.02
    take_first(queue)
    assert queue.own_wait_s is None
    push(queue, owner)
    assert queue.own_wait_s == 0.02


def test_tenants_share_by_weight(queue):
    light, heavy = tenant("light"), tenant("heavy", weight=3)
    for _ in range(40):
        push(queue, light)
        push(queue, heavy)
    taken = [take_first(queue).tenant for _ in range(40)]
    assert taken.count("heavy") == 30


def test_an_idle_tenant_comes_back_at_v_without_credit(queue):
    busy, idle = tenant("busy"), tenant("idle")
    for _ in range(20):
        push(queue, busy)
    for _ in range(10):
        take_first(queue)
    for _ in range(10):
        push(queue, idle)
    taken = [take_first(queue).tenant for _ in range(10)]
    assert taken.count("idle") == 5


def test_riders_of_a_merge_key_come_in_fair_order_and_are_charged(queue):
    light, heavy = tenant("light"), tenant("heavy", weight=3)
    for _ in range(40):
        push(queue, light, "k")
        push(queue, heavy, "k")
    taken = [take_rider(queue, "k").tenant for _ in range(40)]
    assert taken.count("heavy") == 30
    assert queue.virtual.now == 0.0


def test_a_merge_key_that_nobody_waits_with_has_no_rider(queue):
    push(queue, tenant(), "k")
    assert queue.first_of("other") is None


def test_keys_have_heaps_only_while_a_second_one_waits(queue):
    owner = tenant()
    push(queue, owner, "k")
    assert queue._by_key is None
    assert (queue.waiting_of("k"), queue.waiting_of("other"), queue.waiting_of(None)) == (1, 0, 0)
    push(queue, owner)
    assert (queue.waiting_of("k"), queue.waiting_of("other"), queue.waiting_of(None)) == (1, 0, 0)
    assert set(queue._by_key) == {"k"}
    while take_first(queue) is not None:
        pass
    push(queue, owner, "other")
    assert queue._by_key is None
    assert queue.first_of("other") is not None
    assert queue.first_of("k") is None


def test_a_tenant_at_its_cap_comes_back_under_its_key_though_a_second_key_came_meanwhile(queue):
    capped, other = tenant("capped", max_in_flight=0), tenant("other")
    waiting = push(queue, capped, "k")
    assert queue.first() is None
    push(queue, other, "l")
    assert queue.first_of("k") is None
    capped.held.most_tickets = 1
    lift_cap(capped)
    assert queue.first_of("k")[1] is waiting


def test_taken_by_key_is_gone_from_the_heads_too(queue):
    owner = tenant()
    plain, keyed = push(queue, owner), push(queue, owner, "k")
    assert take_rider(queue, "k") is keyed
    assert take_first(queue) is plain
    assert take_first(queue) is None


def test_taken_from_the_heads_is_gone_by_key_too(queue):
    first, second = tenant("a"), tenant("b")
    push(queue, first, "k")
    other = push(queue, second, "k")
    take_first(queue)
    assert take_rider(queue, "k") is other


def test_iteration_gives_retries_first(queue):
    owner = tenant()
    waiting = push(queue, owner)
    retry, ended = make_ticket("background"), make_ticket("background")
    retry.state, ended.state = TicketState.RETRYING, TicketState.ENDED
    queue.retries.extend((ended, retry))
    assert list(queue) == [retry, waiting]


def test_a_queue_is_backlogged_by_tickets_or_by_living_retries(queue):
    assert not queue.backlogged
    retry = make_ticket("background")
    retry.state = TicketState.RETRYING
    queue.retries.append(retry)
    assert queue.backlogged
    assert queue.next_retry() is retry
    retry.state = TicketState.ENDED
    assert not queue.backlogged
    push(queue, tenant())
    assert queue.backlogged


def test_an_empty_queue_remembers_no_tenant_and_no_key(queue):
    for number in range(100):
        push(queue, tenant(f"t{number}"), f"k{number}")
    while take_first(queue) is not None:
        pass
    assert (len(queue._flows), len(queue._by_key), len(queue._key_counts), len(queue._resting)) == (0, 0, 0, 0)
    assert len(queue._heads) == 0


def test_a_strict_class_stays_at_v_whatever_it_is_served():
    strict, virtual = ClassQueue("m", class_settings("first", 1, strict=True), rank=0), VirtualTime()
    other = ClassQueue("m", BACKGROUND, rank=1)
    virtual.serve(other, 5.0)
    virtual.serve(other, 5.0)
    virtual.join(strict)
    for _ in range(10):
        virtual.serve(strict, 100.0)
        virtual.charge(strict, 100.0)
        virtual.ride(strict, 100.0, most_s=1000.0)
    assert strict.start == virtual.now == 5.0


def test_a_newcomer_starts_at_v_with_its_first_ticket(queue):
    busy = tenant("busy")
    for _ in range(4):
        push(queue, busy)
    for _ in range(3):
        take_first(queue)
    push(queue, tenant("newcomer"))
    assert queue._flows["newcomer"].start == queue.virtual.now == 2.0


def test_who_joins_starts_where_the_rides_have_brought_those_that_wait(queue):
    rider, other = tenant("rider"), tenant("other")
    for _ in range(6):
        push(queue, rider, "k")
    take_first(queue)
    for _ in range(4):
        take_rider(queue, "k")
    push(queue, tenant("newcomer"), "k")
    assert queue._flows["newcomer"].start == queue.virtual.now == 4.0
    push(queue, other, "other")
    assert queue._flows["other"].start == 4.0


def test_who_joins_passes_nobody_that_waits(queue):
    rider = tenant("rider")
    for _ in range(6):
        push(queue, rider, "k")
    push(queue, tenant("other"), "other")
    take_first(queue)
    for _ in range(4):
        take_rider(queue, "k")
    push(queue, tenant("newcomer"), "k")
    assert queue._flows["newcomer"].start == 0.0
    assert [take_first(queue).tenant, take_first(queue).tenant] == ["other", "newcomer"]


def test_a_flow_leads_by_what_it_is_ahead_of_the_least_with_another_key(queue):
    rider, other = tenant("rider", weight=2), tenant("other")
    for _ in range(9):
        push(queue, rider, "k")
    for _ in range(6):
        take_rider(queue, "k")
    flow, _ = queue.first_of("k")
    assert not queue.leads(flow, "k", 0.0)  # nobody waits with another
    push(queue, other, "other")
    other_start = queue._flows["other"].start
    assert queue.leads(flow, "k", 2 * (flow.start - other_start) - 0.1)
    assert not queue.leads(flow, "k", 2 * (flow.start - other_start))


@pytest.mark.parametrize("second_key", [False, True])
def test_who_is_ahead_of_its_own_key_alone_leads_nobody(queue, second_key):
    rider, behind = tenant("rider"), tenant("behind")
    if second_key:
        push(queue, tenant("gone"), "other")
    for owner in (rider, rider, behind):
        push(queue, owner, "k")
    if second_key:
        take_first(queue)
    take_rider(queue, "k", cost_s=5.0)
    ahead = queue._flows["rider"]
    assert (ahead.start, queue._flows["behind"].start) == (5.0, 0.0)
    assert not queue.leads(ahead, "k", 0.0)


def test_a_new_queue_is_not_blocked(queue):
    assert queue.blocked is False


def test_new_settings_of_the_class_and_of_its_tenants_hold_for_what_waits(queue):
    owner = tenant()
    push(queue, owner)
    owner.reconfigure(tenant_settings(5), None, ())
    queue.reconfigure(class_settings("background", 3))
    assert (queue.weight, queue.first()[0].weight) == (3, 5)
    queue.reconfigure(class_settings("background", strict=True))
    assert queue.weight == float("inf")


def test_the_tickets_of_a_key_and_the_rows_of_a_tenant_are_counted(queue):
    owner = tenant()
    assert (queue.rows_of(owner), queue.rows_before(make_ticket(), owner)) == (0, 0.0)
    push(queue, owner, "k", rows=3)
    push(queue, owner, rows=4)
    assert [queue.waiting_of(key) for key in ("k", "other", None)] == [1, 0, 0]
    assert queue.rows_of(owner) == 7
    assert queue.rows_before(make_ticket(), owner) == 7


def test_when_a_ticket_too_large_for_its_cap_leaves_the_small_one_behind_it_may_run_at_once(queue):
    capped = tenant("capped", max_rows_in_flight=8)
    push(queue, capped, rows=6)
    take_first(queue)
    large, small = push(queue, capped, rows=3), push(queue, capped)
    assert queue.first() is None
    queue.remove(large)
    assert take_first(queue) is small


@pytest.mark.parametrize("second_key", [False, True])
def test_a_flow_that_was_set_aside_lets_the_next_go_first_and_comes_back_to_its_place(queue, second_key):
    first, second = tenant("first"), tenant("second")
    passed, next_one = push(queue, first, "k"), push(queue, second, "k")
    if second_key:
        push(queue, first, "other")
    flow, _ = queue.first_of("k")
    assert queue.set_aside(flow, "k")[1] is next_one
    queue.put_back(flow, "k")
    assert queue.first_of("k")[1] is passed
    queue.set_aside(flow, "k")
    take_rider(queue, "k")
    assert queue.first_of("k") is None
    queue.put_back(flow, "k")
    assert take_rider(queue, "k") is passed


def test_what_is_charged_later_moves_a_tenants_place_with_its_tag(queue):
    owner = tenant(weight=2)
    for _ in range(3):
        push(queue, owner)
    take_first(queue, cost_s=2.0)
    flow, _ = queue.first()
    queue.charge_more(flow, 3.0)
    assert (flow.start, flow.place) == (2.5, pytest.approx(2.4))


def test_a_class_that_has_emptied_rests_beyond_what_is_charged_later(queue):
    owner = tenant()
    push(queue, owner)
    flow, _ = queue.first()
    take_first(queue, cost_s=2.0)
    queue.charge_more(flow, 3.0)
    assert queue.virtual.now == 5.0
    assert not queue._flows


def test_a_tenant_without_tickets_is_remembered_by_what_was_charged_later(queue):
    gone, stays = tenant("gone"), tenant("stays")
    push(queue, gone)
    flow, _ = queue.first()
    for _ in range(9):
        push(queue, stays)
    take_first(queue, cost_s=2.0)
    queue.charge_more(flow, 3.0)
    for _ in range(3):
        take_first(queue, cost_s=2.0)
    queue.remove(push(queue, tenant("other")))
    assert (queue.virtual.now, "gone" in queue._flows) == (4.0, True)
    take_first(queue, cost_s=2.0)
    queue.remove(push(queue, tenant("other")))
    assert (queue.virtual.now, "gone" in queue._flows) == (6.0, False)


def test_a_class_waits_while_a_tenant_of_it_is_below_its_cap(queue):
    assert not queue.waits
    push(queue, tenant())
    assert queue.waits
    queue.blocked = True
    assert not queue.waits
