import pytest

from scheduler.core.backends.breaker import FIRST_BACKOFF_S
from scheduler.core.backends.patience import GONE, SILENT, Statement
from scheduler.core.events import Abandon, Evict, GiveUp, Inquire, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.rate import RateUnit
from scheduler.core.ticket import QueuePolicy, Step, TicketState
from tests.unit.core.build import (
    BACKGROUND,
    UNHURRIED,
    backend_state,
    class_settings,
    dispatched,
    failed_pair,
    make_ticket,
    pull,
    ready_core,
    submit,
    tenant_settings,
)


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

    def test_a_ticket_that_was_answered_has_no_deadline_to_wake_up_for(self):
        core = ready_core()
        submit(core, deadline=500.0)
        (batch,) = dispatched(core)
        assert core.next_wakeup() <= 500.0
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=1.1)
        assert core.next_wakeup() is None

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

    def test_an_overdue_batch_is_asked_about_and_goes_on_and_nothing_behind_it_is_doubted(self):
        core = ready_core()
        running, ready = submit(core, 2)
        dispatched(core)
        assert core.next_wakeup() == 61.0
        core.tick(now=61.0)
        (asked,) = pull(core)
        estimate_s = core.batch(1).estimate_s
        assert asked == Inquire(1, "gpu0", "m", (running,), again=False, silent_s=60.0, usual_s=estimate_s)
        core.testify(1, Statement(live=True, served=True, inferences=7), now=61.1)
        core.tick(now=121.0)
        assert [event.again for event in pull(core)] == [True]
        assert core.complete(1, Verdict.SUCCEEDED, now=130.0) == [running]
        assert core.complete(2, Verdict.SUCCEEDED, now=130.1) == [ready]
        assert core.idle

    def test_a_batch_whose_model_was_unloaded_is_sent_elsewhere(self):
        core = ready_core(backend_state("a"))
        (ticket,) = submit(core)
        dispatched(core)
        core.set_backend(backend_state("b"), now=2.0)
        core.tick(now=61.0)
        pull(core)
        core.testify(1, Statement(live=True, served=False), now=62.0)
        told, abandoned, again = pull(core)
        assert told == GiveUp(1, "a", "m", (ticket,), GONE, 61.0, told.usual_s)
        assert abandoned == Abandon(1)
        assert (again.backend, again.tickets) == ("b", (ticket,))
        assert core.complete(1, Verdict.SUCCEEDED, now=63.0) == []
        assert core.complete(2, Verdict.SUCCEEDED, now=64.0) == [ticket]

    def test_a_batch_over_its_models_limit_ends_its_tickets_and_nobody_computes_it_again(self):
        core = ready_core(backend_state(instances=2), model_hang_s={"m": 20.0})
        (ticket,) = submit(core, deadline=50.0)
        dispatched(core)
        core.tick(now=21.0)
        told, evicted, abandoned = pull(core)
        assert (told.why, told.silent_s, told.tickets) == ("models.m.hang_s", 20.0, (ticket,))
        assert (evicted.ticket, evicted.outcome, abandoned) == (ticket, Outcome.BACKEND_LOST, Abandon(1))
        assert core.snapshot().backends[0].in_flight == {"m": 1}
        assert core.snapshot().tenants[0].in_flight == 1
        assert core.complete(1, Verdict.SUCCEEDED, now=25.0) == []
        assert core.idle
        assert core.snapshot().tenants == ()

    def test_a_batch_at_a_backend_that_was_silent_for_too_long_is_given_up_with_its_place(self):
        core = ready_core(outage_s=30.0)
        (ticket,) = submit(core)
        dispatched(core)
        core.set_backend(backend_state(ready=False), now=2.0)
        while (at := core.next_wakeup()) < 61.0:
            core.tick(now=at)
            assert pull(core) == []
        core.tick(now=61.0)
        told, evicted, abandoned = pull(core)
        assert (told.why, evicted.ticket, evicted.outcome) == (SILENT, ticket, Outcome.BACKEND_LOST)
        assert abandoned == Abandon(1)
        assert core.snapshot().backends[0].in_flight == {"m": 0}
        assert not core.idle
        assert core.complete(1, Verdict.SUCCEEDED, now=62.0) == []
        assert core.idle

    def test_a_model_that_is_stuck_gets_probes_and_its_places_and_caps_are_free(self):
        core = ready_core(default=tenant_settings(max_in_flight=2))
        submit(core, 2, deadline=2.0)
        dispatched(core)
        core.tick(now=2.0)
        assert [type(event) for event in pull(core)] == [Evict, Abandon, Evict, Abandon]
        (patient,) = submit(core, now=3.0)
        for at in (61.0, 121.0):
            core.tick(now=at)
            assert [event.batch_id for event in pull(core)] == [1]
            core.testify(1, Statement(live=True, served=True), now=at)
        assert pull(core) == []
        assert core.snapshot().backends[0].breakers["m"].state == "open"
        core.tick(now=121.0 + FIRST_BACKOFF_S)
        assert core.batch(1) is None
        (probe,) = dispatched(core)
        assert probe.tickets == (patient,)
        assert core.complete(1, Verdict.ABANDONED, now=122.0) == []
        assert core.complete(probe.batch_id, Verdict.SUCCEEDED, now=123.0) == [patient]
        assert core.snapshot().backends[0].breakers == {}

    def test_a_garbled_answer_is_tried_again_ticket_by_ticket_and_fails_alone(self):
        core = ready_core(backend_state(instances=3))
        pair = submit(core, 2, merge_key="k")
        (batch,) = dispatched(core)
        assert core.complete(batch.batch_id, Verdict.GARBLED, now=2.0) == []
        ended = [core.complete(event.batch_id, Verdict.GARBLED, now=3.0) for event in dispatched(core)]
        assert ended == [[ticket] for ticket in pair]
        assert core.snapshot().ended["FAILED"] == 2


class TestGone:
    """Callers that have gone, places that others wait for, and steps."""

    def test_a_waiting_ticket_frees_its_place_and_one_in_flight_its_batch(self):
        core = ready_core()
        first, _, waiting = submit(core, 3)
        batches = dispatched(core)
        core.cancel(waiting.ticket_id, now=2.0)
        assert (core.snapshot().queued, pull(core)) == (0, [])
        core.cancel(first.ticket_id, now=2.0)
        assert pull(core) == [Abandon(batches[0].batch_id)]
        assert core.complete(batches[0].batch_id, Verdict.ABANDONED, now=3.0) == []
        assert core.snapshot().tenants[0].in_flight == 1

    def test_a_batch_that_was_withdrawn_is_abandoned_once_and_given_up_without_a_word(self):
        core = ready_core()
        (ticket,) = submit(core)
        dispatched(core)
        core.cancel(ticket.ticket_id, now=2.0)
        core.set_backend(backend_state(ready=False), now=3.0)
        core.tick(now=61.0)
        assert pull(core) == [Abandon(1)]
        assert core.snapshot().tenants == ()

    def test_a_freed_cap_lets_the_tenants_next_ticket_go(self):
        core = ready_core(default=tenant_settings(max_in_flight=1))
        submit(core, 2)
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=2.0)
        assert len(dispatched(core)) == 1

    def test_a_ticket_that_leaves_what_is_held_has_the_lane_looked_at(self):
        core = ready_core()
        submit(core)
        core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=1.1)
        held = submit(core, 2, now=2.0, priority_class="background")[1]
        dispatched(core)
        core.cancel(held.ticket_id, now=2.01)
        assert dispatched(core) == []
        assert not core._lanes.held

    def test_a_retry_that_leaves_what_is_held_has_the_lane_looked_at(self):
        core = ready_core()
        submit(core)
        core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=1.1)
        (retried,) = submit(core, now=2.0, priority_class="background")
        (batch,) = dispatched(core)
        submit(core, now=2.0)
        assert len(dispatched(core)) == 1
        core.complete(batch.batch_id, Verdict.UNAVAILABLE, now=2.01)
        assert dispatched(core) == []
        assert core._lanes.held
        core.cancel(retried.ticket_id, now=2.02)
        assert dispatched(core) == []
        assert not core._lanes.held

    @pytest.mark.parametrize("cancelled", [True, False])
    def test_with_a_step_that_waits_those_behind_it_leave_nothing_of_their_tenant(self, cancelled):
        core = ready_core()
        submit(core, 2, tenant="other")
        assert len(dispatched(core)) == 2
        (first,) = submit(core, step=Step("7", True, False, 10.0, False), deadline=2.0)
        (second,) = submit(core, step=Step("7", False, False, 10.0, False))
        assert core.snapshot().queued == 2
        if cancelled:
            core.cancel(first.ticket_id, now=2.0)
        else:
            core.tick(now=2.0)
        lost = [event.ticket for event in pull(core) if event.outcome is Outcome.SEQUENCE_LOST]
        assert lost == [second]
        assert [tenant.name for tenant in core.snapshot().tenants] == ["other"]
        submit(core, step=Step("7", True, False, 10.0, False), now=2.5)
        assert core.snapshot().queued == 1

    def test_a_refused_step_is_a_gap_and_takes_no_other_along(self):
        core = ready_core(default=tenant_settings(max_queued=1))
        steps = [Step("7", number == 0, False, 10.0, False) for number in range(4)]
        submit(core, step=steps[0])
        pull(core)
        for step, outcome in ((steps[1], None), (steps[2], "TENANT_QUEUE_FULL"), (steps[3], "SEQUENCE_LOST")):
            submit(core, step=step)
            assert [event.outcome.name for event in pull(core)] == ([outcome] if outcome else [])

    def test_a_lost_step_takes_those_behind_it_along(self):
        core = ready_core()
        first, second = (submit(core, step=Step("7", not n, False, 10.0, False))[0] for n in range(2))
        pull(core)
        core.complete(1, Verdict.LOST, now=2.0)
        outcomes = [(event.ticket, event.outcome) for event in pull(core)]
        assert outcomes == [(second, Outcome.SEQUENCE_LOST), (first, Outcome.BACKEND_LOST)]

    def test_a_ticket_refused_for_its_rate_is_told_the_exact_time(self):
        core = ready_core(default=tenant_settings(rate_per_s=2))
        submit(core, 2)
        assert [event.pushback_s for event in pull(core) if isinstance(event, Reject)] == [0.5]


class TestRateInSeconds:
    """Of 1 s of service a second, 4 at once; a row is expected to take 5 ms, and costs what it took."""

    @staticmethod
    def left_s(core) -> float:
        """What the tenant has left of the burst."""
        (bucket,) = core._tenants._buckets.values()
        return 4 - bucket.wait_s(4, now=core._now)

    @pytest.fixture
    def core(self):
        return ready_core(default=tenant_settings(rate_per_s=1, burst=4, unit=RateUnit.SECONDS))

    def test_riders_pay_their_rows_part_of_what_the_batch_took(self, core):
        submit(core, rows=1, merge_key="k", now=1.0)
        submit(core, rows=3, merge_key="k", now=1.0)
        assert self.left_s(core) == pytest.approx(4 - 0.02)
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=3.0)
        # 0.02 had come back by then; 2 s were used, and settled at their end.
        assert self.left_s(core) == pytest.approx(4 - (2 - 0.02))

    def test_what_triton_runs_as_one_is_paid_once(self, core):
        submit(core, now=1.0)
        pull(core)
        submit(core, 2, rows=2, join_key="j", now=1.0)
        batches = dispatched(core)
        assert len(batches) == 2
        core.complete(1, Verdict.SUCCEEDED, now=1.0)
        for batch in batches:
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=2.0)
        # Both ran from 1.0 to 2.0, and a second came back meanwhile.
        assert self.left_s(core) == pytest.approx(4 - (1 - 0.02))

    def test_who_leaves_the_queue_pays_nothing(self, core):
        submit(core, now=1.0)
        pull(core)
        (waiting,) = submit(core, now=1.0)
        core.cancel(waiting.ticket_id, now=1.0)
        assert self.left_s(core) == pytest.approx(4 - 0.005)

    def test_who_leaves_a_batch_pays_for_it(self, core):
        (ticket,) = submit(core, now=1.0)
        (batch,) = dispatched(core)
        core.cancel(ticket.ticket_id, now=1.5)
        pull(core)
        core.complete(batch.batch_id, Verdict.ABANDONED, now=2.0)
        assert self.left_s(core) == pytest.approx(4 - (1 - 0.005))

    @pytest.mark.parametrize("verdict", [Verdict.LOST, Verdict.UNREACHED, Verdict.UNAVAILABLE])
    def test_what_a_lost_backend_took_is_nobodys(self, core, verdict):
        submit(core, now=1.0)
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, verdict, now=1.0)
        assert self.left_s(core) == 4

    def test_each_try_is_paid(self, core):
        failed_pair(core)  # a batch of 1 s, from 1.0 on
        first, second = pull(core)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=2.5)
        core.complete(second.batch_id, Verdict.FAILED, now=3.0)
        # 1 s for both, and 0.5 s for each, one after the other; the same came back meanwhile.
        assert self.left_s(core) == pytest.approx(4 - (1 - 0.01))


class TestQueuePolicy:
    def waiting(self, *, delays):
        """Three that wait behind two in flight, for half a second at most; the first since 1.0, the last since 1.2."""
        core = ready_core(backend_state(max_batch_size=0))
        submit(core, 2)
        pull(core)
        policy = QueuePolicy(0, None, 0.5, delays=delays)
        return core, [submit(core, policy=policy, now=1.0 + number / 10)[0] for number in range(3)]

    def test_who_has_waited_for_long_enough_is_refused_and_told_when_to_come_again(self):
        core, tickets = self.waiting(delays=False)
        core.tick(now=1.6)
        events = pull(core)
        assert [(type(event), event.ticket, event.outcome) for event in events] == [
            (Evict, ticket, Outcome.QUEUE_TIMEOUT) for ticket in tickets[:2]
        ]
        assert all(event.pushback_s is not None for event in events)
        assert core.snapshot().queued == 1

    def test_who_is_to_be_delayed_goes_behind_the_others_and_is_served(self):
        core, tickets = self.waiting(delays=True)
        core.tick(now=1.6)
        assert pull(core) == []
        assert [ticket.delayed for ticket in tickets] == [True, True, False]
        served = []
        for batch_id in range(1, 6):
            core.complete(batch_id, Verdict.SUCCEEDED, now=1.6 + batch_id / 100)
            served += [ticket for event in dispatched(core) for ticket in event.tickets]
        assert served == [tickets[2], tickets[0], tickets[1]]
        assert core.idle
