import pytest

from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.settings import Cap
from scheduler.core.tenants.caps import Tenant
from tests.unit.core.filled_queues import lift_cap, push, take_first, tenant


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


@pytest.mark.parametrize(
    ("cost_s", "order"),
    [
        (1.05, ["pair", "pair", "crowd"]),  # the cost of before, but for what was learned in between
        (1.2, ["pair", "crowd", "pair"]),  # another cost
    ],
)
def test_a_tie_goes_to_the_second_request_of_who_has_just_come(queue, cost_s, order):
    crowd, pair = tenant("crowd"), tenant("pair")
    for _ in range(4):
        push(queue, crowd)
    for _ in range(2):
        take_first(queue, 1.0)
    for _ in range(2):
        push(queue, pair)
    assert [take_first(queue, cost_s).tenant for _ in range(3)] == order


def test_ties_earn_nothing_to_who_comes_and_goes_in_pairs(queue):
    crowd, pairs = tenant("crowd"), tenant("pairs")
    for _ in range(200):
        push(queue, crowd)
    taken = []
    for _ in range(200):
        if not pairs.queued:
            push(queue, pairs)
            push(queue, pairs)
        taken.append(take_first(queue, 1.0).tenant)
    assert taken.count("pairs") in (100, 101)


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

    def test_a_cap_on_another_model_is_of_no_concern(self, queue):
        owner = tenant("acme", model_caps={"n": Cap(0, 0)})
        ticket = push(queue, owner, rows=9)
        assert take_first(queue) is ticket


def test_a_flow_waits_in_the_lane_of_its_queue(queue):
    push(queue, owner := tenant("a"))
    (flow,) = queue._flows.values()
    assert (flow.tenant, flow.lane) == (owner, queue.lane)
