import pytest

from scheduler.core.events import Abandon
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.queues.heap import SLACK_ENTRIES
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import Ticket, TicketState
from tests.unit.core.build import (
    UNHURRIED,
    backend_state,
    dispatched,
    make_ticket,
    pull,
    ready_core,
    tenant_settings,
)


def submit(core: Scheduler, count: int, **ticket: object) -> list[Ticket]:
    tickets = [make_ticket(**ticket) for _ in range(count)]
    for each in tickets:
        core.submit(each, now=1.0)
    return tickets


def cancelled(core: Scheduler) -> int:
    return core.snapshot().ended["CANCELLED"]


def test_cancel_while_queued_frees_the_place():
    core = ready_core(max_queued=1)
    submit(core, 1)
    dispatched(core)
    submit(core, 1)
    dispatched(core)
    (waiting,) = submit(core, 1, queue_bytes=7)
    core.cancel(waiting.ticket_id, now=2.0)
    snapshot = core.snapshot()
    assert (snapshot.queued, snapshot.queue_bytes, cancelled(core)) == (0, 0, 1)
    submit(core, 1)
    assert pull(core) == []
    core.complete(1, Verdict.SUCCEEDED, now=3.0)
    assert [event.tickets[0].ticket_id for event in dispatched(core)] != [waiting.ticket_id]


def test_cancel_before_events_are_pulled_dispatches_nothing():
    core = ready_core()
    (ticket,) = submit(core, 1)
    core.cancel(ticket.ticket_id, now=1.0)
    assert pull(core) == []
    assert core.idle


def test_cancel_in_the_middle_of_a_tenants_queue_keeps_the_order_of_the_rest():
    core = ready_core(classes=UNHURRIED)
    tickets = submit(core, 5)
    dispatched(core)
    core.cancel(tickets[3].ticket_id, now=2.0)
    order = []
    for batch_id in (1, 2):
        core.complete(batch_id, Verdict.SUCCEEDED, now=3.0)
        order += [event.tickets[0] for event in dispatched(core)]
    assert order == [tickets[2], tickets[4]]


def test_cancel_in_flight_frees_the_cap_when_the_batch_ends_and_not_before():
    core = ready_core(backend_state(instances=4), default=tenant_settings(max_in_flight=1))
    running, waiting = submit(core, 2)
    dispatched(core)
    core.cancel(running.ticket_id, now=2.0)
    assert pull(core) == [Abandon(1)]
    assert core.snapshot().tenants[0].in_flight == 1
    assert core.complete(1, Verdict.SUCCEEDED, now=3.0) == []
    assert [event.tickets for event in dispatched(core)] == [(waiting,)]


def test_cancel_in_flight_is_counted_as_cancelled_and_not_as_completed():
    core = ready_core()
    left, stayed = submit(core, 2, merge_key="k")
    dispatched(core)
    core.cancel(left.ticket_id, now=2.0)
    assert core.complete(1, Verdict.SUCCEEDED, now=3.0) == [stayed]
    ended = core.snapshot().ended
    assert (ended["CANCELLED"], ended["COMPLETED"]) == (1, 1)


def test_a_scheduler_is_not_idle_while_a_cancelled_ticket_is_in_flight():
    core = ready_core()
    (ticket,) = submit(core, 1)
    dispatched(core)
    core.cancel(ticket.ticket_id, now=2.0)
    assert not core.idle
    core.complete(1, Verdict.LOST, now=3.0)
    assert core.idle
    assert core.snapshot().tenants == ()


def test_a_batch_is_abandoned_when_its_last_caller_has_gone_and_not_before():
    core = ready_core()
    first, last = submit(core, 2, merge_key="k")
    dispatched(core)
    core.cancel(first.ticket_id, now=2.0)
    assert pull(core) == []
    core.cancel(last.ticket_id, now=2.0)
    assert pull(core) == [Abandon(1)]
    assert core.complete(1, Verdict.ABANDONED, now=2.0) == []
    assert core.idle


def test_a_ticket_cancelled_in_flight_is_not_sent_again_when_its_batch_is_lost():
    core = ready_core()
    (ticket,) = submit(core, 1)
    dispatched(core)
    core.cancel(ticket.ticket_id, now=2.0)
    assert pull(core) == [Abandon(1)]
    assert core.complete(1, Verdict.LOST, now=3.0) == []
    assert core.idle


def test_a_ticket_cancelled_in_flight_is_not_tried_again_when_its_batch_fails():
    core = ready_core(default=tenant_settings(max_in_flight=2))
    left, stayed = submit(core, 2, merge_key="k")
    dispatched(core)
    core.cancel(left.ticket_id, now=2.0)
    assert core.complete(1, Verdict.FAILED, now=3.0) == []
    assert [event.tickets for event in dispatched(core)] == [(stayed,)]
    assert core.snapshot().tenants[0].in_flight == 1


def test_cancel_while_waiting_for_a_second_try_frees_the_cap_at_once():
    core = ready_core(default=tenant_settings(max_in_flight=3))
    tickets = submit(core, 3, merge_key="k", deadline=9.0)
    submit(core, 1)
    dispatched(core)
    core.complete(1, Verdict.FAILED, now=2.0)
    assert len(dispatched(core)) == 2
    assert tickets[2].state is TicketState.RETRYING
    core.cancel(tickets[2].ticket_id, now=3.0)
    assert core.snapshot().tenants[0].in_flight == 2
    core.complete(2, Verdict.SUCCEEDED, now=4.0)
    core.complete(3, Verdict.SUCCEEDED, now=4.0)
    assert len(dispatched(core)) == 1
    assert cancelled(core) == 1


def test_cancel_during_the_second_try_ends_the_ticket_once():
    core = ready_core()
    left, stayed = submit(core, 2, merge_key="k")
    dispatched(core)
    core.complete(1, Verdict.FAILED, now=2.0)
    first, second = dispatched(core)
    core.cancel(left.ticket_id, now=3.0)
    assert core.complete(first.batch_id, Verdict.FAILED, now=4.0) == []
    assert core.complete(second.batch_id, Verdict.SUCCEEDED, now=4.0) == [stayed]
    assert core.idle


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.UNREACHED])
def test_cancel_after_the_end_changes_nothing(verdict):
    core = ready_core()
    (ticket,) = submit(core, 1)
    ticket.resent = True
    dispatched(core)
    core.complete(1, verdict, now=2.0)
    before = core.snapshot()
    core.cancel(ticket.ticket_id, now=2.1)
    assert core.snapshot() == before


def test_cancel_of_a_refused_or_expired_ticket_changes_nothing():
    core = ready_core()
    submit(core, 2)
    (expired,) = submit(core, 1, deadline=2.0)
    (refused,) = submit(core, 1, model="unknown")
    core.tick(now=2.0)
    before = core.snapshot()
    for ticket in (expired, refused):
        core.cancel(ticket.ticket_id, now=3.0)
    assert core.snapshot() == before
    assert cancelled(core) == 0


def test_cancel_twice_counts_once():
    core = ready_core()
    (ticket,) = submit(core, 1)
    core.cancel(ticket.ticket_id, now=2.0)
    core.cancel(ticket.ticket_id, now=2.0)
    assert cancelled(core) == 1


def test_cancel_of_an_unknown_ticket_is_ignored():
    core = ready_core()
    core.cancel(123_456_789, now=1.0)
    assert core.idle
    assert sum(core.snapshot().ended.values()) == 0


def test_a_cancelled_ticket_does_not_expire():
    core = ready_core()
    submit(core, 2)
    dispatched(core)
    (ticket,) = submit(core, 1, deadline=5.0)
    core.cancel(ticket.ticket_id, now=2.0)
    assert core.next_wakeup() > 5.0
    core.tick(now=6.0)
    assert pull(core) == []
    assert core.snapshot().ended[Outcome.DEADLINE_EXPIRED.name] == 0


def test_a_storm_of_cancels_with_far_deadlines_leaves_nothing_behind():
    core = ready_core()
    submit(core, 3)
    dispatched(core)
    for number in range(3000):
        (ticket,) = submit(core, 1, tenant=f"t{number}", merge_key=f"k{number}", deadline=1e9)
        core.cancel(ticket.ticket_id, now=1.0)
        assert len(core._endings.deadlines) <= SLACK_ENTRIES + 1
    queue = core._lanes.by_name["m"].classes[0]
    assert (len(queue._flows), len(queue._by_key), len(core._tenants)) == (1, 0, 1)
    assert len(queue._heads) <= 66
