import pytest

from scheduler.core.breaker import COLD_HANG_S, FIRST_BACKOFF_S
from scheduler.core.events import Abandon, Dispatch, Evict, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import Cap
from scheduler.core.ticket import Step, Ticket, TicketState
from tests.unit.core.build import (
    BACKGROUND,
    UNHURRIED,
    backend_state,
    class_settings,
    core_settings,
    dispatched,
    make_ticket,
    pull,
    ready_core,
    tenant_settings,
)

ONE_CLASS = (class_settings("interactive"),)


def submit(core, count=1, *, now=1.0, **ticket) -> list[Ticket]:
    tickets = [make_ticket(**ticket) for _ in range(count)]
    for each in tickets:
        core.submit(each, now=now)
    return tickets


def failed_pair(core, **ticket) -> tuple[Ticket, Ticket]:
    """Two tickets that rode in one batch, which failed at 2.0; nothing is pulled since."""
    pair = submit(core, 2, merge_key="k", **ticket)
    (batch,) = dispatched(core)
    assert core.complete(batch.batch_id, Verdict.FAILED, now=2.0) == []
    return pair[0], pair[1]


class TestHolding:
    """Learned: a row of this model takes 100 ms; of interactive's wait of 50 ms the lead is 15 ms."""

    @staticmethod
    def core(**settings):
        core = ready_core(**settings)
        for number in range(20):
            submit(core, now=float(number))
            (batch,) = dispatched(core)
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=number + 0.1)
        return core

    def test_a_background_batch_that_would_lie_ready_is_held_until_an_instance_is_nearly_free(self):
        core = self.core()
        submit(core, 2, now=100.0, priority_class="background")
        assert len(dispatched(core)) == 1
        assert core.next_wakeup() == pytest.approx(100.085)
        core.tick(now=100.08)
        assert dispatched(core) == []
        core.tick(now=core.next_wakeup())
        assert len(dispatched(core)) == 1
        assert not core._held

    def test_an_interactive_ticket_takes_the_place_of_the_held_batch(self):
        core = self.core()
        submit(core, 2, now=100.0, priority_class="background")
        dispatched(core)
        (interactive,) = submit(core, now=100.02)
        core.tick(now=core.next_wakeup())
        (batch,) = dispatched(core)
        assert batch.tickets == (interactive,)

    def test_a_batch_that_ends_early_lets_the_held_one_go_at_once(self):
        core = self.core()
        submit(core, 2, now=100.0, priority_class="background")
        (first,) = dispatched(core)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=100.05)
        assert len(dispatched(core)) == 1
        assert not core._held

    def test_an_overdue_batch_holds_nothing(self):
        core = self.core()
        submit(core, now=100.0, priority_class="background")
        dispatched(core)
        submit(core, now=100.5, priority_class="background")
        assert len(dispatched(core)) == 1

    def test_a_tenant_that_has_its_class_to_itself_holds_nothing_back_for_others(self):
        core = self.core()
        submit(core, 2, now=100.0)
        assert len(dispatched(core)) == 2

    def test_an_interactive_batch_is_held_too_and_another_tenant_takes_its_place(self):
        core = self.core()
        submit(core, now=99.0, tenant="first")
        (first,) = dispatched(core)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=99.1)
        submit(core, 2, now=100.0)
        assert len(dispatched(core)) == 1
        (other,) = submit(core, now=100.02, tenant="other")
        assert dispatched(core) == []
        core.tick(now=core.next_wakeup())
        (batch,) = dispatched(core)
        assert batch.tickets == (other,)

    def test_before_the_first_answer_no_interactive_batch_is_held(self):
        core = ready_core()
        submit(core, 2)
        assert len(dispatched(core)) == 2

    def test_where_no_class_minds_the_wait_nothing_is_held(self):
        core = self.core(classes=(class_settings("interactive"), BACKGROUND))
        submit(core, 2, now=100.0, priority_class="background")
        assert len(dispatched(core)) == 2

    def test_cancelling_what_is_held_leaves_nothing_behind(self):
        core = self.core()
        held = submit(core, 2, now=100.0, priority_class="background")[1]
        (batch,) = dispatched(core)
        core.cancel(held.ticket_id, now=100.01)
        core.tick(now=100.2)
        assert dispatched(core) == []
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=100.3)
        assert core.idle
        assert core.next_wakeup() is None


class TestArrival:
    def test_a_ticket_with_a_free_place_is_dispatched_at_once(self):
        core = ready_core()
        (ticket,) = submit(core)
        assert dispatched(core) == [Dispatch(1, "gpu0", (ticket,))]
        assert ticket.state is TicketState.IN_FLIGHT

    def test_tickets_submitted_together_ride_together(self):
        core = ready_core()
        tickets = submit(core, 3, merge_key="k")
        assert [event.tickets for event in dispatched(core)] == [tuple(tickets)]

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

    @pytest.mark.parametrize(
        ("ticket", "outcome"),
        [
            ({"deadline": 1.0}, Outcome.DEADLINE_EXPIRED),
            ({"model": "unknown"}, Outcome.NO_BACKEND),
            ({"queue_bytes": 1_000_001}, Outcome.TOO_LARGE),
        ],
    )
    def test_a_refused_ticket_ends_at_once_and_leaves_nothing(self, ticket, outcome):
        core = ready_core()
        (refused,) = submit(core, **ticket)
        (event,) = pull(core)
        assert (type(event), event.ticket, event.outcome) == (Reject, refused, outcome)
        assert (event.pushback_s is None) == (outcome is not Outcome.NO_BACKEND)
        assert refused.state is TicketState.ENDED
        assert core.idle
        assert core.snapshot().tenants == ()

    def test_a_model_of_a_backend_that_is_not_ready_has_no_backend(self):
        core = ready_core(backend_state(ready=False))
        submit(core)
        assert [event.outcome for event in pull(core)] == [Outcome.NO_BACKEND]

    def test_refusals_of_one_class_push_back_that_class_alone(self):
        core = ready_core()
        for second in range(3):
            submit(core, 3, model="unknown", now=1.0 + second)
        interactive, background = core.snapshot().classes
        assert interactive.pushback_s > background.pushback_s == 1

    def test_a_bound_refuses_the_arrival_and_a_free_place_takes_the_next(self):
        core = ready_core(default=tenant_settings(max_queued=1))
        submit(core, 3)
        assert [type(event) for event in pull(core)] == [Reject, Reject, Dispatch]
        submit(core, 1)
        assert [type(event) for event in pull(core)] == [Dispatch]


class TestService:
    def test_batches_in_flight_are_instances_and_one_more(self):
        core = ready_core(backend_state(instances=2))
        submit(core, 5)
        assert len(dispatched(core)) == 3
        core.complete(1, Verdict.SUCCEEDED, now=2.0)
        assert len(dispatched(core)) == 1

    def test_models_take_turns(self):
        core = ready_core(backend_state(models=("m", "n")))
        submit(core, 2, model="m")
        submit(core, 2, model="n")
        assert [event.tickets[0].model for event in dispatched(core)] == ["m", "n", "m", "n"]

    def test_batches_spread_over_backends_by_work(self):
        core = ready_core(backend_state("a"), backend_state("b"))
        submit(core, 3)
        assert [event.backend for event in dispatched(core)] == ["a", "b", "a"]

    def test_completed_tickets_are_returned_and_ended(self):
        core = ready_core()
        tickets = submit(core, 2, merge_key="k")
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.SUCCEEDED, now=2.0) == tickets
        assert core.idle
        assert core.snapshot().ended["COMPLETED"] == 2

    def test_the_service_time_of_a_success_is_learned_and_of_a_failure_is_not(self):
        core = ready_core()
        for now, verdict in ((10, Verdict.FAILED), (20, Verdict.LOST), (30, Verdict.SUCCEEDED)):
            submit(core, now=now)
            batch = dispatched(core)[-1]
            core.complete(batch.batch_id, verdict, now=now + 0.25)
        assert core.snapshot().models[0].row_s == 0.25

    def test_a_batch_completes_once(self):
        core = ready_core()
        submit(core)
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=2.0)
        for batch_id in (batch.batch_id, 99):
            with pytest.raises(ValueError, match=f"batch {batch_id} is not in flight"):
                core.complete(batch_id, Verdict.SUCCEEDED, now=2.0)

    def test_a_capped_tenant_blocks_nobody_and_is_served_when_a_ticket_of_its_own_ends(self):
        core = ready_core(backend_state(instances=8), tenants={"capped": tenant_settings(max_in_flight=1)})
        submit(core, 3, tenant="capped")
        submit(core, 2, tenant="other")
        assert [event.tickets[0].tenant for event in dispatched(core)] == ["capped", "other", "other"]
        core.complete(2, Verdict.SUCCEEDED, now=2.0)
        assert dispatched(core) == []
        core.complete(1, Verdict.SUCCEEDED, now=2.0)
        assert [event.tickets[0].tenant for event in dispatched(core)] == ["capped"]

    def test_a_cap_freed_on_one_model_wakes_the_tenants_tickets_of_another(self):
        core = ready_core(backend_state(models=("m", "n")), tenants={"capped": tenant_settings(max_in_flight=1)})
        submit(core, tenant="capped", model="m")
        submit(core, tenant="capped", model="n")
        (first,) = dispatched(core)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=2.0)
        assert [event.tickets[0].model for event in dispatched(core)] == ["n"]


class TestFailure:
    def test_a_batch_of_one_fails_with_its_ticket(self):
        core = ready_core()
        (ticket,) = submit(core)
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.FAILED, now=2.0) == [ticket]
        assert core.snapshot().ended["FAILED"] == 1
        assert core.idle

    def test_each_ticket_of_a_failed_batch_is_tried_alone_so_that_only_the_guilty_fails(self):
        core = ready_core()
        innocent, guilty = failed_pair(core)
        first, second = dispatched(core)
        assert (first.tickets, second.tickets) == ((innocent,), (guilty,))
        assert core.complete(first.batch_id, Verdict.SUCCEEDED, now=3.0) == [innocent]
        assert core.complete(second.batch_id, Verdict.FAILED, now=3.0) == [guilty]
        assert core.idle

    def test_a_ticket_between_two_tries_keeps_its_place_in_flight_and_holds_none_in_the_queue(self):
        core = ready_core(default=tenant_settings(max_in_flight=2))
        failed_pair(core)
        snapshot = core.snapshot()
        assert (snapshot.queued, snapshot.in_flight, snapshot.models[0].retrying) == (0, 0, 2)
        assert snapshot.tenants[0].in_flight == 2
        submit(core)
        assert len(dispatched(core)) == 2
        assert core.snapshot().queued == 1

    def test_retries_of_background_let_a_more_important_arrival_pass(self):
        core = ready_core(backend_state(max_batch_size=64), classes=(class_settings("interactive", 16), BACKGROUND))
        background = submit(core, 8, priority_class="background", merge_key="k")
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.FAILED, now=2.0)
        running, _ = dispatched(core)
        (arrival,) = submit(core, now=2.0)
        core.complete(running.batch_id, Verdict.SUCCEEDED, now=3.0)
        assert [event.tickets for event in dispatched(core)] == [(arrival,)]
        assert background[2].state is TicketState.RETRYING

    def test_a_deadline_that_passed_in_flight_ends_the_ticket_instead_of_a_second_try(self):
        core = ready_core()
        late, other = submit(core, deadline=1.5, merge_key="k") + submit(core, merge_key="k")
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.FAILED, now=2.0)
        evicted, retried = pull(core)
        assert evicted == Evict(late, Outcome.DEADLINE_EXPIRED, None)
        assert retried.tickets == (other,)

    def test_a_deadline_passes_while_the_ticket_waits_for_its_second_try(self):
        core = ready_core(backend_state(max_batch_size=3))
        tickets = submit(core, 3, deadline=3.0, merge_key="k")
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.FAILED, now=2.0)
        assert len(dispatched(core)) == 2
        assert core.next_wakeup() == 3.0
        core.tick(now=3.0)
        assert [event.ticket for event in pull(core) if isinstance(event, Evict)] == tickets
        assert core.snapshot().tenants[0].in_flight == 2

    def test_tickets_to_be_tried_again_are_evicted_where_the_model_has_gone_meanwhile(self):
        core = ready_core()
        submit(core, 2, merge_key="k")
        (batch,) = dispatched(core)
        core.set_backend(backend_state(ready=False), now=1.5)
        core.complete(batch.batch_id, Verdict.FAILED, now=2.0)
        assert [event.outcome for event in pull(core)] == [Outcome.NO_BACKEND, Outcome.NO_BACKEND]
        assert core.idle
        assert core.snapshot().tenants == ()


class TestDisplacement:
    """Three places in the queue, all taken by background."""

    @staticmethod
    def full(**settings) -> tuple[Scheduler, list[Ticket]]:
        core = ready_core(max_queued=3, **settings)
        submit(core, 2)
        dispatched(core)
        return core, submit(core, 3, priority_class="background", deadline=9.0)

    def test_the_newest_lesser_ticket_gives_way_and_is_told_when_to_come_again(self):
        core, background = self.full()
        (arrival,) = submit(core)
        (event,) = pull(core)
        assert (type(event), event.ticket, event.outcome) == (Evict, background[-1], Outcome.DISPLACED)
        assert event.pushback_s == pytest.approx(1, rel=0.25)
        assert (arrival.state, background[-1].state) == (TicketState.QUEUED, TicketState.ENDED)
        assert core.snapshot().queued == 3
        assert core.snapshot().ended["DISPLACED"] == 1

    def test_a_displaced_ticket_does_not_expire_as_well(self):
        core, background = self.full()
        submit(core, 3)
        assert [event.ticket for event in pull(core)] == background[::-1]
        core.tick(now=9.0)
        assert not any(isinstance(event, Evict) for event in pull(core))

    def test_a_tenant_that_displaces_all_it_had_still_counts_what_it_has(self):
        core = ready_core(max_queued=3)
        submit(core, 2)
        dispatched(core)
        submit(core, 2, priority_class="background")
        (displaced,) = submit(core, priority_class="background", tenant="x")
        (arrival,) = submit(core, tenant="x")
        (event,) = pull(core)
        assert event.ticket is displaced
        assert [t.queued for t in core.snapshot().tenants if t.name == "x"] == [1]
        submit(core, tenant="x")
        pull(core)
        core.cancel(arrival.ticket_id, now=2.0)
        assert [t.queued for t in core.snapshot().tenants if t.name == "x"] == [1]

    def test_when_only_equals_wait_the_arrival_is_refused(self):
        core, _ = self.full()
        submit(core, 3)
        pull(core)
        (refused,) = submit(core)
        assert [(event.ticket, event.outcome) for event in pull(core)] == [(refused, Outcome.QUEUE_FULL)]

    def test_a_ticket_that_is_tried_again_is_not_displaced(self):
        core = ready_core(max_queued=2, classes=(class_settings("interactive", 16), BACKGROUND))
        pair = failed_pair(core, priority_class="background")
        submit(core, 2, now=2.0)
        (refused,) = submit(core, now=2.0)
        assert [event.outcome for event in pull(core) if isinstance(event, Reject)] == [Outcome.QUEUE_FULL]
        assert refused.state is TicketState.ENDED
        assert all(ticket.state is not TicketState.ENDED for ticket in pair)


class TestRate:
    def test_a_refusal_names_the_exact_time_and_leaves_the_classs_pushback_alone(self):
        core = ready_core(default=tenant_settings(rate_per_s=2, burst=2))
        for _ in range(2):
            submit(core, now=1.0)
        refused = submit(core, 20, now=1.2)
        events = [event for event in pull(core) if isinstance(event, Reject)]
        assert [event.ticket for event in events] == refused
        assert {event.outcome for event in events} == {Outcome.RATE_LIMITED}
        assert [event.pushback_s for event in events] == pytest.approx([0.3] * 20)
        assert core.snapshot().classes[0].pushback_s == 1
        submit(core, now=1.2 + events[0].pushback_s)
        assert core.snapshot().ended["RATE_LIMITED"] == 20

    def test_another_tenant_is_not_held_to_it(self):
        core = ready_core(tenants={"metered": tenant_settings(rate_per_s=1)})
        submit(core, 5, tenant="metered")
        submit(core, 5, tenant="free")
        assert core.snapshot().ended["RATE_LIMITED"] == 4

    def test_a_name_that_goes_idle_keeps_its_empty_bucket(self):
        core = ready_core(default=tenant_settings(rate_per_s=1))
        for number in range(5):
            submit(core, now=1.0 + number / 10)
            for batch in [event for event in pull(core) if isinstance(event, Dispatch)]:
                core.complete(batch.batch_id, Verdict.SUCCEEDED, now=1.0 + number / 10)
        assert core.snapshot().tenants == ()
        assert core.snapshot().ended["RATE_LIMITED"] == 4


class TestRowsCap:
    def test_rows_in_flight_never_exceed_the_cap_and_come_back_when_a_batch_ends(self):
        core = ready_core(backend_state(instances=4), default=tenant_settings(max_rows_in_flight=4))
        submit(core, 3, rows=2)
        assert len(dispatched(core)) == 2
        assert core.snapshot().tenants[0].rows_in_flight == 4
        core.complete(1, Verdict.SUCCEEDED, now=2.0)
        assert len(dispatched(core)) == 1

    def test_when_a_ticket_too_wide_for_the_room_left_is_cancelled_the_next_one_runs_at_once(self):
        core = ready_core(backend_state(instances=4), default=tenant_settings(max_rows_in_flight=4))
        submit(core, rows=3)
        wide, narrow = submit(core, rows=2) + submit(core, rows=1)
        assert len(dispatched(core)) == 1
        core.cancel(wide.ticket_id, now=2.0)
        assert [event.tickets for event in dispatched(core)] == [(narrow,)]

    def test_a_cap_on_one_model_leaves_the_tenants_other_models_alone(self):
        caps = {"m": Cap(1, None)}
        core = ready_core(backend_state(instances=4, models=("m", "n")), default=tenant_settings(model_caps=caps))
        submit(core, 3, model="m")
        submit(core, 3, model="n")
        assert sorted(event.tickets[0].model for event in dispatched(core)) == ["m", "n", "n", "n"]

    def test_a_ticket_wider_than_the_cap_is_refused_for_good_in_words(self):
        core = ready_core(default=tenant_settings(max_rows_in_flight=4))
        submit(core, rows=5)
        (event,) = pull(core)
        assert (event.outcome, event.pushback_s) == (Outcome.TOO_LARGE, None)
        assert event.detail == "5 rows can never fit into the 4 that its tenant may have in flight"


def test_a_strict_class_leaves_nothing_to_the_lesser_ones():
    classes = (class_settings("interactive", strict=True), BACKGROUND)
    core = ready_core(classes=classes)
    submit(core, 20)
    submit(core, 20, priority_class="background")
    order = []
    for batch_id in range(1, 41):
        order += [event.tickets[0].priority_class for event in dispatched(core)]
        core.complete(batch_id, Verdict.SUCCEEDED, now=2.0)
    assert order == ["interactive"] * 20 + ["background"] * 20


def test_names_beyond_the_bound_share_one_place_and_the_known_keep_theirs():
    core = ready_core(max_tenants=2, default=tenant_settings(max_queued=3))
    submit(core, 2, tenant="a")
    for number in range(10):
        submit(core, tenant=f"invented{number}")
    queued = {tenant.name: tenant.queued for tenant in core.snapshot().tenants}
    assert queued == {"a": 2, "invented0": 1, "(others)": 3}
    assert core.snapshot().ended["TENANT_QUEUE_FULL"] == 6


class TestFeasibility:
    """Learned: a row takes 100 ms, also in a batch of more."""

    @staticmethod
    def core(**settings) -> Scheduler:
        core = ready_core(classes=ONE_CLASS, **settings)
        for number in range(20):
            submit(core, number % 2 + 1, now=float(number), merge_key="k")
            (batch,) = dispatched(core)
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=number + 0.1 * len(batch.tickets))
        return core

    def test_what_cannot_end_in_time_is_refused_at_once_and_asked_not_to_come_again(self):
        core = self.core()
        (refused,) = submit(core, now=100.0, deadline=100.09)
        assert pull(core) == [Reject(refused, Outcome.DEADLINE_INFEASIBLE, None)]
        submit(core, now=100.0, deadline=100.11)
        assert len(dispatched(core)) == 1

    def test_what_waits_ahead_counts(self):
        core = self.core()
        submit(core, 10, now=100.0)
        assert len(dispatched(core)) == 2
        submit(core, now=100.0, tenant="other", deadline=100.15)
        assert [event.outcome for event in pull(core)] == [Outcome.DEADLINE_INFEASIBLE]

    def test_whoever_cannot_end_in_time_any_more_is_evicted_when_his_turn_comes(self):
        core = self.core()
        submit(core, 2, now=100.0)
        first, _ = dispatched(core)
        late, patient = submit(core, now=100.0, deadline=100.5) + submit(core, now=100.0)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=100.45)
        dispatch, evicted = pull(core)
        assert evicted == Evict(late, Outcome.DEADLINE_INFEASIBLE, None)
        assert dispatch.tickets == (patient,)
        assert core.snapshot().queued == 0

    def test_when_nobody_is_left_after_such_evictions_they_are_still_told(self):
        core = self.core()
        submit(core, 2, now=100.0)
        first, second = dispatched(core)
        (late,) = submit(core, now=100.0, deadline=100.5)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=100.45)
        assert pull(core) == [Evict(late, Outcome.DEADLINE_INFEASIBLE, None)]
        core.complete(second.batch_id, Verdict.SUCCEEDED, now=100.6)
        assert core.idle


class TestDeadlines:
    def test_a_ticket_expires_at_its_deadline_and_not_before(self):
        core = ready_core()
        submit(core, 2)
        assert len(dispatched(core)) == 2
        (waiting,) = submit(core, deadline=5.0)
        assert core.next_wakeup() == 5.0
        core.tick(now=4.999)
        assert pull(core) == []
        core.tick(now=5.0)
        assert pull(core) == [Evict(waiting, Outcome.DEADLINE_EXPIRED, None)]
        assert core.next_wakeup() > 5.0

    def test_a_tenants_earlier_deadline_goes_first(self):
        core = ready_core(classes=UNHURRIED)
        submit(core, 2)
        dispatched(core)
        patient, late, early = submit(core) + submit(core, deadline=8.0) + submit(core, deadline=5.0)
        order = []
        for batch_id in (1, 2, 3):
            core.complete(batch_id, Verdict.SUCCEEDED, now=2.0)
            order += [event.tickets[0] for event in dispatched(core)]
        assert order == [early, late, patient]

    def test_a_ticket_in_flight_is_answered_at_its_deadline_and_frees_its_place_when_its_batch_ends(self):
        core = ready_core()
        (ticket,) = submit(core, deadline=5.0)
        (batch,) = dispatched(core)
        assert core.next_wakeup() == 5.0
        core.tick(now=5.0)
        assert pull(core) == [Evict(ticket, Outcome.DEADLINE_EXPIRED, None), Abandon(batch.batch_id)]
        assert core.snapshot().tenants[0].in_flight == 1
        assert core.complete(batch.batch_id, Verdict.ABANDONED, now=5.0) == []
        assert core.idle
        assert core.snapshot().tenants == ()

    def test_a_batch_in_which_one_deadline_passed_serves_the_others(self):
        core = ready_core()
        late, other = submit(core, deadline=5.0, merge_key="k") + submit(core, merge_key="k")
        (batch,) = dispatched(core)
        core.tick(now=5.0)
        assert pull(core) == [Evict(late, Outcome.DEADLINE_EXPIRED, None)]
        assert core.complete(batch.batch_id, Verdict.SUCCEEDED, now=6.0) == [other]

    def test_a_deadline_survives_a_second_try(self):
        core = ready_core()
        pair = submit(core, 2, deadline=5.0, merge_key="k")
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.FAILED, now=2.0)
        assert len(dispatched(core)) == 2
        core.tick(now=5.0)
        assert [event.ticket for event in pull(core) if isinstance(event, Evict)] == pair

    def test_every_input_lets_time_pass(self):
        core = ready_core()
        submit(core, 2)
        (batch, _) = dispatched(core)
        inputs = (
            lambda now: core.submit(make_ticket(), now=now),
            lambda now: core.complete(batch.batch_id, Verdict.SUCCEEDED, now=now),
            lambda now: core.cancel(0, now=now),
            lambda now: core.set_backend(backend_state(), now=now),
            lambda now: core.tick(now=now),
            lambda now: core.drain(now=now),
        )
        for now, feed in enumerate(inputs, start=10):
            (expiring,) = submit(core, deadline=now, now=now - 0.5)
            feed(now)
            assert expiring.state is TicketState.ENDED
            pull(core)


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


class TestYielding:
    """Lesser batches keep to the backend's limit while another model is active with a more important class."""

    def test_a_second_background_batch_waits_for_the_first_beside_an_active_interactive_model(self):
        core = ready_core(backend_state(models=("m", "n"), instances=3))
        submit(core, model="n")
        (interactive,) = dispatched(core)
        submit(core, 3, priority_class="background")
        (first,) = dispatched(core)
        assert core.snapshot().backends[0].concurrency.lesser == 1
        core.complete(interactive.batch_id, Verdict.SUCCEEDED, now=1.1)
        assert dispatched(core) == []
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=1.2)
        assert len(dispatched(core)) == 1

    def test_when_the_interactive_model_has_been_quiet_the_next_end_lets_all_go(self):
        core = ready_core(backend_state(models=("m", "n"), instances=3))
        submit(core, model="n")
        submit(core, 3, priority_class="background")
        batches = dispatched(core)
        for batch in batches:
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=3.0)
        assert len(dispatched(core)) == 2

    def test_the_important_are_never_limited(self):
        core = ready_core(backend_state(models=("m", "n"), instances=3))
        submit(core, 2, model="n")
        submit(core, 3, model="m")
        assert len(dispatched(core)) == 5

    def test_a_backend_of_one_model_is_not_limited(self):
        core = ready_core(backend_state(instances=3))
        submit(core, 1)
        submit(core, 2, priority_class="background")
        assert len(dispatched(core)) == 3


class TestLoss:
    def test_tickets_of_a_lost_batch_are_sent_once_more_elsewhere_and_each_alone(self):
        core = ready_core(backend_state("a"), backend_state("b"))
        pair = submit(core, 2, merge_key="k")
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.LOST, now=2.0) == []
        again = dispatched(core)
        assert [(event.backend, *event.tickets) for event in again] == [("b", pair[0]), ("b", pair[1])]
        assert [core.complete(event.batch_id, Verdict.SUCCEEDED, now=3.0) for event in again] == [[t] for t in pair]

    def test_a_ticket_lost_twice_is_refused_with_pushback(self):
        core = ready_core(backend_state("a"), backend_state("b"))
        (ticket,) = submit(core)
        for _ in range(2):
            (batch,) = dispatched(core)
            assert core.complete(batch.batch_id, Verdict.LOST, now=2.0) == []
        (event,) = pull(core)
        assert (type(event), event.ticket, event.outcome) == (Evict, ticket, Outcome.BACKEND_LOST)
        assert event.pushback_s is not None
        assert core.idle
        assert core.snapshot().tenants == ()

    def test_a_second_unavailable_is_the_backends_own_answer(self):
        core = ready_core()
        (ticket,) = submit(core)
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.UNAVAILABLE, now=2.0) == []
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.UNAVAILABLE, now=2.0) == [ticket]
        assert core.snapshot().ended["FAILED"] == 1

    def test_with_one_backend_tickets_wait_for_the_probe_and_then_all_are_served(self):
        core = ready_core(classes=UNHURRIED)
        submit(core, 4)
        first, second = dispatched(core)
        core.complete(first.batch_id, Verdict.LOST, now=2.0)
        core.complete(second.batch_id, Verdict.LOST, now=2.0)
        assert pull(core) == []
        breaker = core.snapshot().backends[0].breakers["m"]
        assert (breaker.state, breaker.why, breaker.since) == ("open", "lost", 2.0)
        assert core.next_wakeup() == breaker.retry_at == 2.0 + FIRST_BACKOFF_S
        core.tick(now=2.0 + FIRST_BACKOFF_S)
        (probe,) = dispatched(core)
        assert core.snapshot().backends[0].breakers["m"].state == "half_open"
        core.complete(probe.batch_id, Verdict.SUCCEEDED, now=2.5)
        assert core.snapshot().backends[0].breakers == {}
        assert len(dispatched(core)) == 2

    def test_while_the_breaker_is_open_arrivals_wait_until_their_deadlines(self):
        core = ready_core()
        submit(core)
        core.complete(dispatched(core)[0].batch_id, Verdict.LOST, now=2.0)
        (patient,) = submit(core, now=2.0, deadline=2.1)
        assert pull(core) == []
        core.tick(now=2.1)
        assert pull(core) == [Evict(patient, Outcome.DEADLINE_EXPIRED, None)]

    def test_an_open_breaker_of_one_model_leaves_the_others_alone(self):
        core = ready_core(backend_state(models=("m", "n")))
        submit(core, model="m")
        core.complete(dispatched(core)[0].batch_id, Verdict.LOST, now=2.0)
        submit(core, model="n", now=2.0)
        assert [event.tickets[0].model for event in dispatched(core)] == ["n"]

    def test_a_hung_batch_and_what_lies_behind_it_are_given_up_and_sent_elsewhere(self):
        core = ready_core(backend_state("a"))
        running, ready = submit(core, 2)
        dispatched(core)
        core.set_backend(backend_state("b"), now=2.0)
        while core.next_wakeup() < 1.0 + COLD_HANG_S:
            core.tick(now=core.next_wakeup())
            assert pull(core) == []
        core.tick(now=1.0 + COLD_HANG_S)
        assert [event for event in pull(core) if isinstance(event, Abandon)] == [Abandon(1), Abandon(2)]
        snapshot = core.snapshot()
        assert [sum(backend.in_flight.values()) for backend in snapshot.backends] == [0, 2]
        assert snapshot.backends[0].breakers["m"].why == "no answer in 60 s"
        assert (running.resent, ready.resent) == (True, True)

    def test_the_late_answer_of_a_batch_that_was_given_up_changes_nothing(self):
        core = ready_core()
        (ticket,) = submit(core)
        dispatched(core)
        core.tick(now=1.0 + COLD_HANG_S)
        assert pull(core) == [Abandon(1)]
        before = core.snapshot()
        assert core.complete(1, Verdict.SUCCEEDED, now=1.0 + COLD_HANG_S) == []
        assert core.snapshot() == before
        assert ticket.state is TicketState.RETRYING
        with pytest.raises(ValueError, match="batch 1 is not in flight"):
            core.complete(1, Verdict.SUCCEEDED, now=100.0)

    def test_a_batch_that_nobody_waits_for_hangs_without_a_second_try(self):
        core = ready_core()
        (ticket,) = submit(core)
        dispatched(core)
        core.cancel(ticket.ticket_id, now=2.0)
        core.tick(now=1.0 + COLD_HANG_S)
        core.complete(1, Verdict.ABANDONED, now=1.0 + COLD_HANG_S)
        assert core.idle
        assert core.snapshot().tenants == ()

    def test_a_garbled_answer_is_tried_again_ticket_by_ticket_and_fails_alone(self):
        core = ready_core(backend_state(instances=3))
        pair = submit(core, 2, merge_key="k")
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.GARBLED, now=2.0) == []
        ended = [core.complete(event.batch_id, Verdict.GARBLED, now=3.0) for event in dispatched(core)]
        assert ended == [[ticket] for ticket in pair]
        assert core.snapshot().ended["FAILED"] == 2


class TestSequences:
    """What the core does with steps; the order within sequences is looked at in test_sequence.py."""

    @staticmethod
    def step(core, *, sequence="7", start=False, end=False, **about) -> Ticket:
        """Submit one step."""
        (ticket,) = submit(core, step=Step(sequence, start, end, idle_s=10.0, pipelined=False), **about)
        return ticket

    @staticmethod
    def ends(core) -> list[tuple[Ticket, Outcome]]:
        """Every event there is; all of them ends."""
        return [(event.ticket, event.outcome) for event in pull(core)]

    def test_a_step_with_a_merge_key_is_the_callers_error(self):
        core = ready_core()
        with pytest.raises(ValueError, match="is a step of a sequence, and those are not merged"):
            self.step(core, start=True, merge_key="k")
        assert core.idle

    def test_a_step_that_waits_behind_another_counts_as_queued_and_goes_when_that_is_answered(self):
        core = ready_core()
        first, second = self.step(core, start=True, queue_bytes=10), self.step(core, end=True, queue_bytes=20)
        assert dispatched(core) == [Dispatch(1, "gpu0", (first,))]
        (tenant,), (model,) = core.snapshot().tenants, core.snapshot().models
        assert (tenant.queued, tenant.queue_bytes, tenant.in_flight) == (1, 20, 1)
        assert model.queued == {"interactive": 1, "background": 0}
        assert core.complete(1, Verdict.SUCCEEDED, now=2.0) == [first]
        assert dispatched(core) == [Dispatch(2, "gpu0", (second,))]
        assert core.complete(2, Verdict.SUCCEEDED, now=3.0) == [second]
        assert (core.idle, core.snapshot().tenants) == (True, ())

    def test_a_step_without_a_start_is_refused(self):
        core = ready_core()
        ticket = self.step(core)
        assert self.ends(core) == [(ticket, Outcome.SEQUENCE_LOST)]
        assert core.idle

    def test_a_refused_step_is_a_gap_while_another_is_under_way(self):
        core = ready_core(default=tenant_settings(max_queued=1))
        self.step(core, start=True)
        pull(core)
        kept, refused = self.step(core), self.step(core)
        assert self.ends(core) == [(refused, Outcome.TENANT_QUEUE_FULL)]
        core.complete(1, Verdict.SUCCEEDED, now=2.0)
        assert dispatched(core) == [Dispatch(2, "gpu0", (kept,))]
        late = self.step(core)
        assert self.ends(core) == [(late, Outcome.SEQUENCE_LOST)]

    def test_cancelling_a_step_behind_another_frees_its_place_and_loses_those_after_it(self):
        core = ready_core()
        self.step(core, start=True)
        _, middle, last = self.step(core), self.step(core), self.step(core)
        pull(core)
        core.cancel(middle.ticket_id, now=1.0)
        assert self.ends(core) == [(last, Outcome.SEQUENCE_LOST)]
        assert (core.snapshot().queued, core.snapshot().tenants[0].queued) == (1, 1)

    def test_a_start_that_expires_in_its_queue_lets_the_next_start_come(self):
        core = ready_core(default=tenant_settings(max_in_flight=1))
        self.step(core, sequence="8", start=True)
        pull(core)
        first, lost, following = self.step(core, start=True, deadline=2.0), self.step(core), self.step(core, start=True)
        core.tick(now=2.0)
        assert self.ends(core) == [(lost, Outcome.SEQUENCE_LOST), (first, Outcome.DEADLINE_EXPIRED)]
        core.complete(1, Verdict.SUCCEEDED, now=3.0)
        assert dispatched(core) == [Dispatch(2, "gpu0", (following,))]

    def test_a_step_that_the_backend_lost_takes_those_behind_it_along(self):
        core = ready_core(backend_state("a"), backend_state("b"))
        first, second = self.step(core, start=True), self.step(core)
        pull(core)
        assert core.complete(1, Verdict.LOST, now=2.0) == []
        assert self.ends(core) == [(second, Outcome.SEQUENCE_LOST), (first, Outcome.BACKEND_LOST)]
        assert core.idle

    def test_a_step_that_cannot_end_in_time_behind_the_others_is_refused(self):
        core = ready_core()
        # Nothing is known of the cost yet.
        self.step(core, start=True, now=0.0, deadline=0.2)
        for number in range(20):
            core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=number + 0.1)
            self.step(core, now=number + 1.0)
        pull(core)
        late = self.step(core, now=20.0, deadline=20.05)
        assert self.ends(core) == [(late, Outcome.DEADLINE_INFEASIBLE)]

    def test_a_sequence_waits_for_its_own_backend_though_another_has_places(self):
        core = ready_core(backend_state("a"), backend_state("b"), classes=UNHURRIED)
        for sequence in ("1", "2", "3", "4", "5"):
            self.step(core, sequence=sequence, start=True)
        out = {event.tickets[0].step.sequence_id: event for event in dispatched(core)}
        assert {sequence: event.backend for sequence, event in out.items()} == {"1": "a", "2": "b", "3": "a", "4": "b"}
        core.complete(out["2"].batch_id, Verdict.SUCCEEDED, now=2.0)
        assert dispatched(core) == []
        core.complete(out["1"].batch_id, Verdict.SUCCEEDED, now=3.0)
        assert [(event.backend, event.tickets[0].step.sequence_id) for event in dispatched(core)] == [("a", "5")]

    def test_a_backend_that_goes_takes_its_own_sequences_along_alone(self):
        core = ready_core(backend_state("a"), backend_state("b"), default=tenant_settings(max_in_flight=2))
        for sequence in ("1", "2"):
            self.step(core, sequence=sequence, start=True)
        assert [event.backend for event in dispatched(core)] == ["a", "b"]
        behind_first, behind_second = (self.step(core, sequence=sequence) for sequence in ("1", "2"))
        queued = self.step(core, sequence="3", start=True)
        core.set_backend(backend_state("a", ready=False), now=2.0)
        assert self.ends(core) == [(behind_first, Outcome.SEQUENCE_LOST), (queued, Outcome.SEQUENCE_LOST)]
        core.complete(2, Verdict.SUCCEEDED, now=3.0)
        assert [event.tickets for event in dispatched(core)] == [(behind_second,)]


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


def test_the_clock_never_goes_back():
    core = ready_core()
    core.tick(now=10.0)
    submit(core, deadline=9.0, now=8.0)
    assert [event.outcome for event in pull(core)] == [Outcome.DEADLINE_EXPIRED]


class TestChange:
    def test_other_classes_are_refused_and_the_old_settings_stay(self):
        core = ready_core()
        with pytest.raises(ValueError, match="classes: expected interactive, background as before, got interactive"):
            core.reconfigure(core_settings(ONE_CLASS), now=1.0)
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
