from scheduler.core.queues import resting
from tests.unit.core.filled_queues import push, take_first, tenant


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


def test_names_that_are_served_once_while_others_wait_are_not_all_remembered(queue, monkeypatch):
    monkeypatch.setattr(resting, "MAX_RESTING", 50)
    push(queue, tenant("t0"))
    for number in range(1, 1000):  # someone new always waits at V, so V stands still
        push(queue, tenant(f"t{number}"))
        take_first(queue)
    assert len(queue._flows) <= 52
    assert len(queue._resting) <= 51


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
    monkeypatch.setattr(resting, "MAX_RESTING", 3)
    push(queue, tenant("t0"))
    remembered = []
    for number in range(1, 8):
        push(queue, tenant(f"t{number}"))
        take_first(queue)
        remembered.append(len(queue._resting))
    assert remembered[:4] == [1, 2, 3, 3]
    assert max(remembered) == 3


def test_who_waits_is_served_though_newcomers_never_end(queue, monkeypatch):
    monkeypatch.setattr(resting, "MAX_RESTING", 3)
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
    monkeypatch.setattr(resting, "MAX_RESTING", 1)
    once, dear, busy = tenant("once"), tenant("dear"), tenant("busy")
    for owner in (once, dear, busy, busy):
        push(queue, owner)
    take_first(queue, cost_s=2.0)
    take_first(queue, cost_s=5.0)
    assert "once" not in queue._flows
    push(queue, once)
    assert queue._flows["once"].start == 2.0
    assert queue.virtual.now == 0.0


def test_a_tenant_that_was_forgotten_and_came_anew_keeps_its_tag(queue):
    other, before, after = tenant("other"), tenant("acme"), tenant("acme")
    push(queue, other)
    push(queue, other)
    push(queue, before)
    take_first(queue)
    take_first(queue, cost_s=5.0)
    push(queue, after)
    assert [take_first(queue).tenant, take_first(queue).tenant] == ["other", "acme"]
