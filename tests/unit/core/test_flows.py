import pytest

from scheduler.core import flows
from scheduler.core.caps import Tenant
from scheduler.core.flows import SLACK_ENTRIES, ClassQueue
from scheduler.core.settings import Cap
from scheduler.core.share import VirtualTime
from scheduler.core.ticket import Ticket, TicketState
from tests.unit.core.build import BACKGROUND, class_settings, make_ticket, tenant_settings


@pytest.fixture
def queue() -> ClassQueue:
    return ClassQueue("m", BACKGROUND, rank=1)


def tenant(name: str = "acme", weight: float = 1, max_in_flight: int = 100, **others: object) -> Tenant:
    return Tenant(name, tenant_settings(weight, max_in_flight, **others))


def lift_cap(capped: Tenant) -> None:
    """What the tenant had at the backends has ended."""
    capped.held.tickets = capped.held.rows = 0
    for flow in capped.unblocked():
        flow.unpark()


def push(queue: ClassQueue, owner: Tenant, merge_key: str | None = None, rows: int = 1) -> Ticket:
    ticket = make_ticket("background", owner.name, merge_key=merge_key, rows=rows, queue_bytes=10)
    queue.push(ticket, owner)
    return ticket


def take_first(queue: ClassQueue, cost_s: float = 1.0) -> Ticket | None:
    found = queue.first()
    if found is not None:
        queue.take(*found, cost_s, chosen=True)
    return None if found is None else found[1]


def take_rider(queue: ClassQueue, merge_key: str, cost_s: float = 1.0) -> Ticket | None:
    found = queue.first_of(merge_key)
    if found is not None:
        queue.take(*found, cost_s, chosen=False)
    return None if found is None else found[1]


def test_pushing_and_taking_keep_the_counts(queue):
    owner = tenant()
    ticket = push(queue, owner)
    assert (queue.queued, owner.queued, owner.queue_bytes, owner.in_flight) == (1, 1, 10, 0)
    assert (ticket.state, ticket.holder) == (TicketState.QUEUED, owner)
    assert take_first(queue) is ticket
    assert (queue.queued, owner.queued, owner.queue_bytes, owner.in_flight) == (0, 0, 0, 1)
    assert ticket.state is TicketState.IN_FLIGHT
    assert queue.first() is None


def test_removing_frees_the_place_and_takes_nothing_in_flight(queue):
    owner = tenant()
    ticket = push(queue, owner, "k")
    queue.remove(ticket)
    assert (queue.queued, owner.queued, owner.queue_bytes, owner.in_flight) == (0, 0, 0, 0)
    assert ticket.state is TicketState.ENDED
    assert queue.first() is None
    assert queue.first_of("k") is None


def test_the_wait_of_a_class_protects_tenants_that_share_it_until_one_was_alone_for_long(monkeypatch):
    monkeypatch.setattr(flows, "ALONE_BATCHES", 2)
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


def test_equal_tags_go_to_the_tenant_that_came_first(queue):
    for name in ("b", "a"):
        push(queue, tenant(name))
    assert [take_first(queue).tenant, take_first(queue).tenant] == ["b", "a"]


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


def test_a_tenant_that_leaves_and_returns_at_once_does_not_escape_its_charge(queue):
    steady, hopper = tenant("steady"), tenant("hopper")
    for _ in range(20):
        push(queue, steady)
    taken = []
    for _ in range(20):
        if not hopper.queued:
            push(queue, hopper)
        taken.append(take_first(queue).tenant)
    assert taken.count("hopper") == 10


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


def test_a_capped_tenant_blocks_nobody_and_comes_back_when_unparked(queue):
    capped, other = tenant("capped", max_in_flight=1), tenant("other")
    for _ in range(2):
        push(queue, capped, "k")
    waiting = push(queue, other, "k")
    take_first(queue)
    assert queue.first_of("k")[1] is waiting
    assert take_first(queue) is waiting
    assert queue.first() is None
    lift_cap(capped)
    assert queue.first_of("k")[1].tenant == "capped"
    assert take_first(queue).tenant == "capped"


def test_a_tenant_gets_no_credit_for_its_time_at_the_cap(queue):
    capped, other = tenant("capped", max_in_flight=1), tenant("other")
    for _ in range(30):
        push(queue, capped)
        push(queue, other)
    taken = [take_first(queue).tenant for _ in range(11)]
    assert taken.count("other") == 10
    taken = []
    for _ in range(10):
        lift_cap(capped)
        taken.append(take_first(queue).tenant)
    assert taken.count("capped") in (5, 6)


def test_a_tenant_that_was_forgotten_and_came_anew_keeps_its_tag(queue):
    other, before, after = tenant("other"), tenant("acme"), tenant("acme")
    push(queue, other)
    push(queue, other)
    push(queue, before)
    take_first(queue)
    take_first(queue, cost_s=5.0)
    push(queue, after)
    assert [take_first(queue).tenant, take_first(queue).tenant] == ["other", "acme"]


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


def test_flows_are_forgotten_once_v_has_passed_their_tags(queue):
    once, busy = tenant("once"), tenant("busy")
    push(queue, once)
    for _ in range(10):
        push(queue, busy)
    for _ in range(4):
        take_first(queue)
    assert "once" in queue._flows  # V stands at busy's tag until busy gives a flow back
    last = push(queue, tenant("passer-by"))
    queue.remove(last)
    assert list(queue._flows) == ["busy"]


def test_a_storm_of_names_that_come_and_go_leaves_nothing_behind(queue):
    steady = tenant("steady")
    push(queue, steady, "k")
    push(queue, steady, "another")
    for number in range(5000):
        queue.remove(push(queue, tenant(f"t{number}"), "k"))
        assert len(queue._heads) <= SLACK_ENTRIES + 2
        assert len(queue._by_key["k"]) <= SLACK_ENTRIES + 2
    assert len(queue._flows) == 1
    assert take_first(queue).tenant == "steady"


def test_names_that_are_served_once_while_others_wait_are_not_all_remembered(queue, monkeypatch):
    monkeypatch.setattr(flows, "MAX_RESTING", 50)
    push(queue, tenant("t0"))
    for number in range(1, 1000):  # someone new always waits at V, so V stands still
        push(queue, tenant(f"t{number}"))
        take_first(queue)
    assert len(queue._flows) <= 52
    assert len(queue._resting) <= 51


def test_a_capped_tenant_that_cancels_and_returns_is_parked_once(queue):
    capped = tenant("capped", max_in_flight=0)
    for _ in range(1000):
        ticket = push(queue, capped)
        assert queue.first() is None
        queue.remove(ticket)
    assert len(capped.parked) == 0
    push(queue, capped)
    queue.first()
    for _ in range(1000):
        ticket = push(queue, capped)
        assert queue.first() is None
        queue.remove(ticket)
    (flow,) = capped.parked
    assert len(flow.absent_from) == 1


def test_a_flow_ahead_of_v_that_cancels_and_returns_is_lined_up_to_be_forgotten_once(queue):
    ahead, steady = tenant("ahead"), tenant("steady")
    push(queue, ahead)
    push(queue, steady)
    take_first(queue, cost_s=100.0)
    for _ in range(1000):
        queue.remove(push(queue, ahead))
    assert (len(queue._resting), queue._flows["ahead"].start) == (1, 100.0)


def test_a_flow_unparked_without_tickets_is_forgotten_in_the_end(queue):
    capped, other = tenant("capped", max_in_flight=1), tenant("other")
    for _ in range(3):
        push(queue, other)
    push(queue, capped)
    second = push(queue, capped)
    for _ in range(3):
        take_first(queue)
    assert queue.first()[0].tenant is other
    queue.remove(second)
    for flow in list(capped.parked):
        flow.unpark()
    take_first(queue)
    assert queue._flows == {}


class TestRowsCap:
    @staticmethod
    def capped(queue: ClassQueue) -> Tenant:
        """Of eight rows that may be in flight six are."""
        owner = tenant("capped", max_rows_in_flight=8)
        push(queue, owner, rows=6)
        take_first(queue)
        return owner

    def test_a_ticket_whose_rows_do_not_fit_waits_and_blocks_nobody(self, queue):
        capped = self.capped(queue)
        large = push(queue, capped, rows=3)
        other = push(queue, tenant("other"))
        assert take_first(queue) is other
        assert take_first(queue) is None
        lift_cap(capped)
        assert take_first(queue) is large

    def test_a_small_ticket_does_not_overtake_a_large_one_of_its_tenant(self, queue):
        capped = self.capped(queue)
        large, _ = push(queue, capped, "k", rows=3), push(queue, capped, "l")
        assert queue.first_of("l") is None
        assert queue.first_of("k") is None
        assert queue.first() is None
        lift_cap(capped)
        assert take_first(queue) is large

    def test_when_the_large_one_leaves_the_small_one_behind_it_may_run_at_once(self, queue):
        capped = self.capped(queue)
        large, small = push(queue, capped, rows=3), push(queue, capped)
        assert queue.first() is None
        queue.remove(large)
        assert take_first(queue) is small

    def test_a_cap_on_another_model_is_of_no_concern(self, queue):
        owner = tenant("acme", model_caps={"n": Cap(0, 0)})
        ticket = push(queue, owner, rows=9)
        assert take_first(queue) is ticket


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


def test_a_tenant_is_lined_up_once_whatever_it_pushes(queue):
    owner = tenant()
    push(queue, owner, "another")
    for _ in range(10):
        push(queue, owner, "k")
    assert (len(queue._heads), len(queue._by_key["k"])) == (1, 1)


def test_a_newcomer_starts_at_v_with_its_first_ticket(queue):
    busy = tenant("busy")
    for _ in range(4):
        push(queue, busy)
    for _ in range(3):
        take_first(queue)
    push(queue, tenant("newcomer"))
    assert queue._flows["newcomer"].start == queue.virtual.now == 2.0


def test_a_tenant_that_was_met_without_tickets_is_lined_up_again(queue):
    ahead, steady = tenant("ahead"), tenant("steady")
    push(queue, ahead)
    push(queue, steady)
    take_first(queue, cost_s=5.0)
    assert queue.first()[0].tenant is steady  # on the way the empty flow was met and dropped
    assert len(queue._heads) == 1
    push(queue, ahead)
    assert [take_first(queue).tenant, take_first(queue).tenant] == ["steady", "ahead"]


def test_a_heap_is_swept_again_only_when_it_has_doubled(queue):
    for number in range(SLACK_ENTRIES + 1):
        push(queue, tenant(f"t{number}"))
    assert queue._heads._sweep_at == SLACK_ENTRIES + 2 * SLACK_ENTRIES


def test_a_flow_that_was_too_busy_to_be_forgotten_is_forgotten_when_it_leaves(queue):
    ahead, steady = tenant("ahead"), tenant("steady")
    push(queue, ahead)
    for _ in range(6):
        push(queue, steady)
    take_first(queue, cost_s=5.0)
    waiting = push(queue, ahead)
    queue.virtual.now = 5.5
    queue.remove(push(queue, tenant("passer-by")))  # V has passed the tag, but the flow has a ticket
    queue.remove(waiting)
    assert list(queue._flows) == ["steady"]


def test_no_more_idle_flows_are_remembered_than_the_bound(queue, monkeypatch):
    monkeypatch.setattr(flows, "MAX_RESTING", 3)
    push(queue, tenant("t0"))
    remembered = []
    for number in range(1, 8):
        push(queue, tenant(f"t{number}"))
        take_first(queue)
        remembered.append(len(queue._resting))
    assert remembered[:4] == [1, 2, 3, 3]
    assert max(remembered) == 3


def test_who_waits_is_served_though_newcomers_never_end(queue, monkeypatch):
    monkeypatch.setattr(flows, "MAX_RESTING", 3)
    steady = tenant("steady")
    for _ in range(100):
        push(queue, steady)
    taken = []
    for number in range(200):
        if queue.queued == len(queue._flows["steady"].tickets):
            push(queue, tenant(f"t{number}"))
        taken.append(take_first(queue).tenant)
    # One newcomer too many is forgotten, and from then on they start at its tag.
    assert taken.count("steady") >= 200 // (3 + 2)


def test_a_flow_that_was_forgotten_early_comes_back_no_lower(queue, monkeypatch):
    monkeypatch.setattr(flows, "MAX_RESTING", 1)
    once, dear, busy = tenant("once"), tenant("dear"), tenant("busy")
    for owner in (once, dear, busy, busy):
        push(queue, owner)
    take_first(queue, cost_s=2.0)
    take_first(queue, cost_s=5.0)
    assert "once" not in queue._flows
    push(queue, once)
    assert queue._flows["once"].start == 2.0
    assert queue.virtual.now == 0.0


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
