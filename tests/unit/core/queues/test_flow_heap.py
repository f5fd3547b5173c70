from scheduler.core.queues.flow_heap import SLACK_ENTRIES
from tests.unit.core.filled_queues import lift_cap, push, take_first, take_rider, tenant


def test_equal_tags_go_to_the_tenant_that_came_first(queue):
    for name in ("b", "a"):
        push(queue, tenant(name))
    assert [take_first(queue).tenant, take_first(queue).tenant] == ["b", "a"]


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


def test_a_tenant_is_lined_up_once_whatever_it_pushes(queue):
    owner = tenant()
    push(queue, owner, "another")
    for _ in range(10):
        push(queue, owner, "k")
    assert (len(queue._heads), len(queue._by_key["k"])) == (1, 1)


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


def test_a_sweep_keeps_everybody_who_waits_with_the_key(queue):
    waiting = [tenant(f"t{number}") for number in range(SLACK_ENTRIES + 5)]
    for owner in waiting:
        push(queue, owner, "other")
        push(queue, owner, "k")
    riders = [take_rider(queue, "k") for _ in waiting]
    assert {(ticket.tenant, ticket.merge_key) for ticket in riders} == {(owner.name, "k") for owner in waiting}
    assert take_rider(queue, "k") is None


def test_the_heap_of_a_key_does_not_keep_those_who_wait_with_another_alone(queue):
    push(queue, tenant("steady"), "k")
    for number in range(5 * SLACK_ENTRIES):
        owner = tenant(f"t{number}")
        push(queue, owner, "other")
        queue.remove(push(queue, owner, "k"))
        assert len(queue._by_key["k"]) <= SLACK_ENTRIES + 2


def test_a_tag_that_has_grown_is_corrected_when_it_comes_to_the_top(queue):
    served, other = tenant("served"), tenant("other")
    for _ in range(2):
        push(queue, served)
    push(queue, other)
    assert [take_first(queue, cost_s=5.0).tenant, take_first(queue).tenant] == ["served", "other"]
    assert queue.first()[0].start == 5.0


def test_the_first_may_be_dropped_and_added_again(queue):
    for name in ("a", "b"):
        push(queue, tenant(name))
    heap = queue._heads
    flow, _ = heap.first()
    heap.drop_first(flow)
    assert (len(heap), heap.first()[1].tenant) == (1, "b")
    heap.add(flow)
    assert (len(heap), heap.first()[0]) == (2, flow)
