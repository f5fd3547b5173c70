import pytest

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.backends.breaker import FIRST_BACKOFF_S
from scheduler.core.backends.patience import Statement
from scheduler.core.events import Abandon, Evict, GiveUp, Inquire, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.ticket import QueuePolicy, Step, TicketState
from tests.unit.core.build import (
    ONE_CLASS,
    UNHURRIED,
    backend_state,
    class_settings,
    core_settings,
    dispatched,
    make_ticket,
    pull,
    ready_core,
    submit,
    tenant_settings,
)


class TestBackends:
    def test_a_backend_that_becomes_ready_takes_what_waits(self):
        core = ready_core(backend_state("a"))
        submit(core, 4)
        assert len(dispatched(core)) == 2
        core.set_backend(backend_state("b"), now=2.0)
        assert [event.backend for event in dispatched(core)] == ["b", "b"]

    def test_more_instances_take_what_waits(self):
        core = ready_core()
        submit(core, 4)
        dispatched(core)
        core.set_backend(backend_state(instances=3), now=2.0)
        assert len(dispatched(core)) == 2

    def test_when_the_last_backend_goes_what_waits_is_evicted_and_what_is_in_flight_ends(self):
        core = ready_core()
        tickets = submit(core, 4)
        first, second = dispatched(core)
        core.set_backend(backend_state(ready=False), now=2.0)
        assert [(event.ticket, event.outcome) for event in pull(core)] == [
            (ticket, Outcome.NO_BACKEND) for ticket in tickets[2:]
        ]
        assert core.snapshot().backends[0].in_flight == {"m": 2}
        assert core.complete(first.batch_id, Verdict.SUCCEEDED, now=3.0) == [tickets[0]]
        assert core.complete(second.batch_id, Verdict.LOST, now=3.0) == []
        assert [(event.ticket, event.outcome) for event in pull(core)] == [(tickets[1], Outcome.NO_BACKEND)]
        assert core.idle

    def test_a_backend_that_was_lost_and_is_ready_again_is_probed_at_once(self):
        core = ready_core()
        (ticket,) = submit(core, now=1.0)
        core.complete(dispatched(core)[0].batch_id, Verdict.LOST, now=2.0)
        assert pull(core) == []  # it waits to be tried again, and the breaker is open
        core.set_backend(backend_state("b"), now=2.0)
        core.set_backend(backend_state(ready=False), now=2.0)
        assert [event.tickets for event in dispatched(core)] == [(ticket,)]
        core.set_backend(backend_state("b", ready=False), now=2.0)
        core.set_backend(backend_state(), now=2.0 + FIRST_BACKOFF_S / 2)
        (other,) = submit(core, now=2.0 + FIRST_BACKOFF_S / 2)
        assert [event.tickets for event in dispatched(core)] == [(other,)]

    def test_while_another_backend_offers_the_model_nothing_is_evicted(self):
        core = ready_core(backend_state("a"), backend_state("b"), classes=UNHURRIED)
        submit(core, 6)
        assert len(dispatched(core)) == 4
        core.set_backend(backend_state("a", ready=False), now=2.0)
        assert pull(core) == []
        core.complete(1, Verdict.SUCCEEDED, now=3.0)
        assert pull(core) == []
        core.complete(2, Verdict.SUCCEEDED, now=3.0)
        assert [event.backend for event in dispatched(core)] == ["b"]

    def test_a_model_that_vanishes_is_evicted_alone_and_its_batches_end(self):
        core = ready_core(backend_state(models=("m", "n")))
        submit(core, 3, model="m")
        submit(core, 3, model="n")
        batches = dispatched(core)
        core.set_backend(backend_state(models=("n",)), now=2.0)
        assert [event.ticket.model for event in pull(core)] == ["m"]
        assert core.snapshot().backends[0].in_flight == {"n": 2, "m": 2}
        for batch in batches:
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=3.0)
        assert [event.tickets[0].model for event in dispatched(core)] == ["n"]

    def test_evicted_tickets_with_deadlines_do_not_wake_anybody(self):
        core = ready_core()
        flying = submit(core, 4, deadline=9.0)[:2]
        dispatched(core)
        core.set_backend(backend_state(ready=False), now=2.0)
        pull(core)
        core.tick(now=9.0)
        assert [event.ticket for event in pull(core) if isinstance(event, Evict)] == flying


class TestDrain:
    def test_draining_refuses_arrivals_and_serves_what_was_accepted(self):
        core = ready_core(classes=UNHURRIED)
        submit(core, 3)
        first, _ = dispatched(core)
        core.drain(now=2.0)
        (late,) = submit(core, now=2.0)
        (event,) = pull(core)
        assert (type(event), event.ticket, event.outcome) == (Reject, late, Outcome.DRAINING)
        assert event.pushback_s is not None
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=3.0)
        (third,) = dispatched(core)
        core.complete(2, Verdict.SUCCEEDED, now=3.0)
        assert not core.idle
        core.complete(third.batch_id, Verdict.SUCCEEDED, now=4.0)
        assert core.idle

    def test_a_failed_batch_is_tried_again_while_draining(self):
        core = ready_core()
        core.submit(make_ticket(merge_key="k"), now=1.0)
        core.submit(make_ticket(merge_key="k"), now=1.0)
        (batch,) = dispatched(core)
        core.drain(now=1.0)
        core.complete(batch.batch_id, Verdict.FAILED, now=2.0)
        assert len(dispatched(core)) == 2


def test_what_waits_is_counted_over_all_models():
    core = ready_core(backend_state(models=("m", "n")))
    submit(core, 4, model="m")
    submit(core, 3, model="n")
    pull(core)
    assert core.queued == core.snapshot().queued > 0


def test_the_clock_never_goes_back():
    core = ready_core()
    core.tick(now=10.0)
    submit(core, deadline=9.0, now=8.0)
    assert [event.outcome for event in pull(core)] == [Outcome.DEADLINE_EXPIRED]


class TestChange:
    def test_other_classes_are_refused_and_the_old_settings_stay(self):
        core = ready_core()
        with pytest.raises(
            ValueError, match=r"classes: expected interactive, background as before, got interactive, x$"
        ):
            core.reconfigure(core_settings((*ONE_CLASS, class_settings("x"))), now=1.0)
        submit(core, priority_class="background")
        assert len(dispatched(core)) == 1

    def test_new_settings_drop_nothing_and_let_out_what_a_cap_held(self):
        core = ready_core(default=tenant_settings(max_in_flight=1))
        submit(core, 2, now=1.0)
        assert len(dispatched(core)) == 1
        assert core.batch(1).rows == 1
        core.reconfigure(core_settings(default=tenant_settings(max_in_flight=2)), now=2.0)
        assert len(dispatched(core)) == 1
        assert core.snapshot().tenants[0].in_flight == 2

    def test_a_ticket_larger_than_the_only_free_backend_takes_waits_for_the_other(self):
        core = ready_core(backend_state("small"), backend_state("large", max_batch_size=32))
        for _ in range(2):
            submit(core, rows=32)
        assert [event.backend for event in dispatched(core)] == ["large", "large"]
        submit(core, rows=32)
        assert dispatched(core) == []

    def test_the_pushback_of_a_class_falls_while_nothing_comes(self):
        core = ready_core(default=tenant_settings(max_queued=1, max_in_flight=1))
        submit(core, 8, now=1000.0)
        submit(core, 1, now=1001.0)
        pull(core)
        assert [core.snapshot(now=now).classes[0].pushback_s for now in (0.0, 1003.0, 1004.0)] == [2, 2, 1]
        assert core.snapshot().classes[0].pushback_s == 2


class TestCallersErrors:
    def test_an_unknown_class_is_the_callers_error(self):
        core = ready_core()
        with pytest.raises(ValueError, match="unknown class 'urgent'; configured are interactive, background"):
            core.submit(make_ticket("urgent"), now=1.0)
        assert core.idle

    def test_a_ticket_is_submitted_once(self):
        core = ready_core()
        (ticket,) = submit(core)
        for again in (ticket, make_ticket(ticket_id=ticket.ticket_id)):
            with pytest.raises(ValueError, match=f"ticket {ticket.ticket_id} was submitted before"):
                core.submit(again, now=1.0)

    def test_a_step_with_a_merge_key_is_the_callers_error(self):
        core = ready_core()
        with pytest.raises(ValueError, match="is a step of a sequence, and those are not merged"):
            submit(core, merge_key="k", step=Step("7", True, False, idle_s=10.0, pipelined=False))
        assert core.idle


class TestInputs:
    def test_completed_tickets_are_returned_and_the_core_is_idle(self):
        core = ready_core()
        (ticket,) = submit(core)
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.SUCCEEDED, now=2.0) == [ticket]
        assert (core.idle, core.next_wakeup()) == (True, None)

    def test_the_answer_of_a_batch_that_was_given_up_ends_nothing(self):
        core = ready_core(model_hang_s={"m": 20.0})
        submit(core)
        (batch,) = dispatched(core)
        core.tick(now=21.0)
        assert [type(event) for event in pull(core)] == [GiveUp, Evict, Abandon]
        assert not core.idle
        assert core.complete(batch.batch_id, Verdict.SUCCEEDED, now=22.0) == []
        assert core.idle

    def test_a_stream_that_flows_is_not_asked_about(self):
        core = ready_core()
        submit(core)
        dispatched(core)
        for at in (50.0, 100.0, 150.0):
            core.hear_of(1, now=at)
            core.tick(now=at)
        assert pull(core) == []
        assert core.next_wakeup() > 150.0

    def test_testimony_of_a_model_that_works_changes_nothing(self):
        core = ready_core()
        submit(core)
        dispatched(core)
        core.testify(1, Statement(live=True), now=2.0)
        core.tick(now=61.0)
        assert [type(event) for event in pull(core)] == [Inquire]
        core.testify(1, Statement(live=True, served=True), now=61.0)
        assert pull(core) == []
        core.testify(1, Statement(live=True), now=62.0)
        assert [type(event) for event in pull(core)][:2] == [GiveUp, Abandon]

    def test_a_reload_gives_a_running_batch_another_limit(self):
        core = ready_core()
        submit(core)
        dispatched(core)
        core.reconfigure(core_settings(model_hang_s={"m": 5.0}), now=7.0)
        core.tick(now=7.0)
        assert [type(event) for event in pull(core)] == [GiveUp, Evict, Abandon]

    def test_a_silent_backend_frees_the_places_of_what_is_given_up(self):
        core = ready_core()
        submit(core)
        dispatched(core)
        core.set_backend(backend_state(ready=False), now=2.0)
        core.tick(now=61.0)
        assert [type(event) for event in pull(core)] == [GiveUp, Evict, Abandon]
        assert core.snapshot().tenants == ()
        assert not core.idle
        assert core.complete(1, Verdict.SUCCEEDED, now=62.0) == []
        assert core.idle

    def test_an_overdue_batch_is_asked_about(self):
        core = ready_core()
        submit(core)
        dispatched(core)
        core.tick(now=61.0)
        assert [type(event) for event in pull(core)] == [Inquire]

    def test_cancelling_what_ended_changes_nothing(self):
        core = ready_core()
        (ticket,) = submit(core)
        for now in (2.0, 3.0):
            core.cancel(ticket.ticket_id, now=now)
        assert core.snapshot().ended["CANCELLED"] == 1

    def test_a_deadline_wakes_up_and_evicts_before_anything_goes_out(self):
        core = ready_core()
        submit(core, 2)
        dispatched(core)
        (late,) = submit(core, deadline=5.0)
        assert core.next_wakeup() == 5.0
        core.tick(now=5.0)
        assert [event.ticket for event in pull(core)] == [late]

    def test_what_is_held_wakes_up_and_goes(self):
        core = ready_core()
        submit(core)
        core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=1.1)
        submit(core, 2, now=2.0, priority_class="background")
        assert len(dispatched(core)) == 1
        core.tick(now=core.next_wakeup())
        assert len(dispatched(core)) == 1

    def test_an_eviction_at_its_turn_is_told_though_nothing_goes_out(self):
        core = ready_core()
        for number in range(20):
            submit(core, now=float(number))
            core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=number + 0.1)
        submit(core, 2, now=50.0)
        first, _ = dispatched(core)
        (late,) = submit(core, now=50.0, deadline=50.5)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=50.45)
        assert [event.ticket for event in pull(core)] == [late]

    def test_a_start_that_waits_for_a_slot_wakes_up_when_one_may_be_forgotten(self):
        core = ready_core(BackendState("a", True, {"m": ModelCapacity(4, 1, sequence_slots=1)}))
        for sequence in "12":
            submit(core, step=Step(sequence, True, False, idle_s=3.0, pipelined=False))
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=2.0)
        assert dispatched(core) == []
        while not (sent := dispatched(core)):
            core.tick(now=core.next_wakeup())
        assert (len(sent), core._now) == (1, 5.0)

    def test_a_probe_is_due_when_a_breaker_says_so(self):
        core = ready_core()
        submit(core)
        core.complete(dispatched(core)[0].batch_id, Verdict.LOST, now=2.0)
        assert dispatched(core) == []
        core.tick(now=2.0 + FIRST_BACKOFF_S)
        assert len(dispatched(core)) == 1


class TestOutage:
    """A backend that was ready is missed for a while."""

    def test_what_waits_and_what_arrives_is_served_when_the_backend_is_back(self):
        core = ready_core(outage_s=30.0)
        waiting = submit(core, 3)
        running = dispatched(core)
        core.set_backend(backend_state(ready=False), now=2.0)
        arrived = submit(core, now=3.0, deadline=20.0)
        assert pull(core) == []
        assert core.offers("m")
        for batch in running:
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=4.0)
        assert pull(core) == []
        core.set_backend(backend_state(), now=5.0)
        assert [event.tickets[0] for event in dispatched(core)] == [waiting[2], *arrived]

    def test_an_outage_that_is_too_long_ends_what_waits(self):
        core = ready_core(outage_s=30.0)
        submit(core)
        core.complete(dispatched(core)[0].batch_id, Verdict.UNREACHED, now=2.0)
        core.set_backend(backend_state(ready=False), now=2.0)
        (arrived,) = submit(core, now=3.0)
        while (at := core.next_wakeup()) < 32.0:
            core.tick(now=at)
            assert pull(core) == []
        core.tick(now=32.0)
        assert {event.outcome for event in pull(core)} == {Outcome.NO_BACKEND}
        assert arrived.state is TicketState.ENDED
        assert core.idle
        submit(core, now=33.0)
        assert [event.outcome for event in pull(core)] == [Outcome.NO_BACKEND]
        assert not core.offers("m")

    def test_a_deadline_within_the_outage_is_kept(self):
        core = ready_core(outage_s=30.0)
        core.set_backend(backend_state(ready=False), now=1.0)
        submit(core, now=2.0, deadline=2.5)
        core.tick(now=2.5)
        assert [event.outcome for event in pull(core)] == [Outcome.DEADLINE_EXPIRED]

    def test_without_patience_for_outages_what_waits_ends_at_once(self):
        core = ready_core(outage_s=0.0)
        submit(core, 3)
        dispatched(core)
        core.set_backend(backend_state(ready=False), now=2.0)
        assert [event.outcome for event in pull(core)] == [Outcome.NO_BACKEND]

    def test_a_shorter_outage_holds_from_its_reload_on(self):
        core = ready_core(outage_s=30.0)
        core.set_backend(backend_state(ready=False), now=1.0)
        submit(core, now=2.0)
        core.reconfigure(core_settings(outage_s=1.0), now=3.0)
        assert [event.outcome for event in pull(core)] == [Outcome.NO_BACKEND]

    def test_an_unloaded_model_is_no_outage(self):
        core = ready_core(backend_state(models=("m", "n")), outage_s=30.0)
        submit(core, 3)
        dispatched(core)
        core.set_backend(backend_state(models=("n",)), now=2.0)
        assert [event.outcome for event in pull(core)] == [Outcome.NO_BACKEND]

    def test_a_sequence_loses_its_state_and_a_new_one_waits(self):
        core = ready_core(outage_s=30.0)
        start, then = Step("7", True, False, 10.0, False), Step("7", False, False, 10.0, False)
        submit(core, step=start)
        core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=1.5)
        core.set_backend(backend_state(ready=False), now=2.0)
        submit(core, step=then, now=3.0)
        assert [event.outcome for event in pull(core)] == [Outcome.SEQUENCE_LOST]
        (anew,) = submit(core, step=Step("8", True, False, 10.0, False), now=4.0)
        (behind,) = submit(core, step=Step("8", False, False, 10.0, False), now=4.0)
        assert pull(core) == []
        core.tick(now=32.0)
        assert {(event.ticket, event.outcome) for event in pull(core)} == {
            (anew, Outcome.SEQUENCE_LOST),
            (behind, Outcome.SEQUENCE_LOST),
        }


def test_the_end_of_what_a_policy_lets_a_ticket_wait_wakes_up_and_evicts():
    core = ready_core(backend_state(max_batch_size=0))
    submit(core, 2)
    pull(core)
    (ticket,) = submit(core, policy=QueuePolicy(0, 4, 0.5, delays=False))
    assert core.next_wakeup() == 1.5
    core.tick(now=1.5)
    assert [(event.ticket, event.outcome) for event in pull(core)] == [(ticket, Outcome.QUEUE_TIMEOUT)]
    assert core.next_wakeup() > 1.5


def test_a_ticket_that_left_for_its_backend_is_not_timed_out_any_more():
    core = ready_core(backend_state(max_batch_size=0))
    (ticket,) = submit(core, policy=QueuePolicy(0, 4, 0.5, delays=False))
    assert [event.tickets for event in dispatched(core)] == [(ticket,)]
    core.tick(now=2.0)
    assert pull(core) == []


class TestRemovedBackend:
    def test_what_waits_goes_to_the_others(self):
        core = ready_core(backend_state("a"))
        (first,) = submit(core)
        (batch,) = dispatched(core)
        core.set_backend(backend_state("b"), now=1.0)
        core.remove_backend("a", now=1.0)
        submit(core, 3)
        assert {each.backend for each in dispatched(core)} == {"b"}
        assert core.complete(batch.batch_id, Verdict.SUCCEEDED, now=2.0) == [first]
        assert [each.name for each in core.snapshot().backends] == ["b"]

    def test_where_there_are_no_others_requests_wait_and_end_when_none_came(self):
        core = ready_core(outage_s=30.0)
        core.remove_backend("gpu0", now=1.0)
        submit(core, now=1.0)
        assert pull(core) == []
        core.tick(now=core.next_wakeup())
        assert [event.outcome for event in pull(core)] == [Outcome.NO_BACKEND]
        assert core.snapshot().backends == ()

    def test_the_states_of_sequences_are_lost_with_it(self):
        core = ready_core()
        submit(core, step=Step("7", True, False, 10.0, False))
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=1.5)
        core.remove_backend("gpu0", now=1.6)
        core.set_backend(backend_state("b"), now=1.7)
        submit(core, step=Step("7", False, False, 10.0, False), now=1.8)
        assert [event.outcome for event in pull(core)] == [Outcome.SEQUENCE_LOST]


def test_a_stream_that_has_begun_may_make_room_for_another():
    core = ready_core(backend_state(streams=True))
    submit(core, 4)
    first, _ = dispatched(core)
    assert core.hear_of(first.batch_id, now=1.1)
    assert dispatched(core) == []  # as configured, one runs and one lies ready
    assert not core.hear_of(first.batch_id, now=1.2)
    assert core.hear_of(first.batch_id + 1, now=1.2)
    assert len(dispatched(core)) == 1
    assert not core.hear_of(99, now=1.3)
