import pytest

from scheduler.core.events import Evict
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import Cap
from scheduler.core.ticket import Step
from tests.unit.core.build import (
    BACKGROUND,
    UNHURRIED,
    backend_state,
    class_settings,
    dispatched,
    failed_pair,
    pull,
    ready_core,
    submit,
    tenant_settings,
)


def test_a_lane_that_is_gone_has_no_batch():
    assert ready_core()._dispatcher.dispatch("gone", now=0.0) is None


class TestHolding:
    """Learned: a row of this model takes 100 ms; of interactive's wait of 50 ms the lead is 15 ms."""

    @staticmethod
    def core(**settings):
        core = ready_core(**settings)
        for number in range(79, 99):
            submit(core, now=float(number))
            (batch,) = dispatched(core)
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=number + 0.1)
        return core

    def test_a_background_batch_that_would_lie_ready_is_held_until_an_instance_is_nearly_free(self):
        core = self.core()
        submit(core, 2, now=100.0, priority_class="background")
        assert len(dispatched(core)) == 1
        assert core.next_wakeup() == pytest.approx(100.09)
        core.tick(now=100.085)
        assert dispatched(core) == []
        core.tick(now=core.next_wakeup())
        assert len(dispatched(core)) == 1
        assert not core._lanes.held

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
        assert not core._lanes.held

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

    def test_where_nobody_of_a_class_above_has_come_for_long_nothing_is_held(self):
        core = self.core()
        submit(core, 2, now=103.0, priority_class="background")
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


class TestLate:
    """Learned: a row of this model takes 100 ms."""

    @staticmethod
    def core(**settings) -> Scheduler:
        core = ready_core(classes=(class_settings("interactive"),), **settings)
        for number in range(20):
            submit(core, number % 2 + 1, now=float(number), merge_key="k")
            (batch,) = dispatched(core)
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=number + 0.1 * len(batch.tickets))
        return core

    def test_whoever_cannot_end_in_time_any_more_is_evicted_when_his_turn_comes(self):
        core = self.core()
        submit(core, 2, now=50.0)
        first, _ = dispatched(core)
        late, patient = submit(core, now=50.0, deadline=50.5) + submit(core, now=50.0)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=50.45)
        dispatch, evicted = pull(core)
        assert evicted == Evict(late, Outcome.DEADLINE_INFEASIBLE, None)
        assert dispatch.tickets == (patient,)
        assert core.snapshot().queued == 0

    def test_when_nobody_is_left_after_such_evictions_they_are_still_told(self):
        core = self.core()
        submit(core, 2, now=50.0)
        first, second = dispatched(core)
        (late,) = submit(core, now=50.0, deadline=50.5)
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=50.45)
        assert pull(core) == [Evict(late, Outcome.DEADLINE_INFEASIBLE, None)]
        core.complete(second.batch_id, Verdict.SUCCEEDED, now=50.6)
        assert core.idle

    def test_steps_wait_for_their_own_backend_and_a_model_without_a_lane_has_no_batch(self):
        core = ready_core(backend_state("a"), backend_state("b"), classes=UNHURRIED)
        for sequence in "12345":
            submit(core, step=Step(sequence, True, False, 10.0, False))
            (batch,) = dispatched(core)
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=1.0)
        # 1, 3 and 5 are at a, which has two places.
        for sequence in "135":
            submit(core, step=Step(sequence, False, False, 10.0, False))
        out = dispatched(core)
        assert [event.backend for event in out] == ["a", "a"]
        submit(core, step=Step("2", False, False, 10.0, False))
        assert [event.backend for event in dispatched(core)] == ["b"]
        core.complete(out[0].batch_id, Verdict.SUCCEEDED, now=3.0)
        assert [event.backend for event in dispatched(core)] == ["a"]

    def test_a_deadline_that_a_full_batch_would_miss_is_looked_at_for_the_batch_as_it_is(self):
        core = self.core()
        submit(core, now=50.0, merge_key="k", deadline=50.3)
        assert len(dispatched(core)) == 1

    def test_on_an_idle_instance_whoever_is_expected_to_be_late_is_tried_until_its_deadline(self):
        core = self.core()
        submit(core, now=50.0, merge_key="k", deadline=50.15)
        core.tick(now=50.06)
        assert len(dispatched(core)) == 1
        core = self.core()
        submit(core, now=50.0, merge_key="k", deadline=50.05)
        assert len(dispatched(core)) == 1

    def test_in_overload_the_next_in_line_takes_the_instance_and_the_last_one_is_tried(self):
        core = ready_core(backend_state(instances=2, max_batch_size=1), classes=(class_settings("interactive"),))
        for number in range(20):
            submit(core, now=float(number), merge_key="k")
            core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=number + 0.1)
        submit(core, 3, now=50.0, merge_key="k")
        first, second, third = dispatched(core)
        late, last = (submit(core, now=50.0, deadline=at, merge_key="k")[0] for at in (54.0, 54.1))
        for batch in (first, second):
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=53.92)
        assert [event.ticket for event in pull(core) if isinstance(event, Evict)] == [late]
        assert last.batch_id
        assert core.batch(third.batch_id)

    def test_without_overload_whoever_could_not_be_in_time_by_the_fastest_of_late_is_evicted(self):
        core = self.core()
        submit(core, 2, now=50.0)
        (first, second), late = dispatched(core), submit(core, now=50.0, deadline=50.45, merge_key="k")
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=50.3)
        assert [event.ticket for event in pull(core)] == late
        assert core.batch(second.batch_id)

    def test_a_ticket_that_fits_only_where_there_is_no_place_waits(self):
        core = ready_core(backend_state("small"), backend_state("large", max_batch_size=32))
        submit(core, 2, rows=32)
        assert [event.backend for event in dispatched(core)] == ["large", "large"]
        submit(core, rows=32)
        assert dispatched(core) == []

    def test_tickets_to_be_tried_again_hold_no_place_in_admission(self):
        core = ready_core()
        failed_pair(core)
        assert len(dispatched(core)) == 2
        assert core.snapshot().queued == 0


class TestJoining:
    """Requests that cannot be merged here, and that Triton runs as one: learned, 100 ms for one row and for eight."""

    @staticmethod
    def core(*states, **settings):
        core = ready_core(*states, **{"classes": UNHURRIED} | settings)
        for number in range(79, 99):
            submit(core, now=float(number), join_key="j", rows=1 + number % 2 * 7)
            (batch,) = dispatched(core)
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=number + 0.1)
        return core

    def test_they_leave_as_long_as_they_fit_into_what_lies_ready(self):
        core = self.core()
        submit(core, 20, now=100.0, join_key="j")
        # One runs, and eight lie ready; the rest waits.
        assert [batch.tickets[0].rows for batch in dispatched(core)] == [1] * 9
        assert core.snapshot().queued == 11

    def test_those_of_another_key_wait_for_a_place(self):
        core = self.core()
        submit(core, 2, now=100.0, join_key="j")
        submit(core, now=100.0, join_key="other")
        submit(core, now=100.0)
        assert len(dispatched(core)) == 2

    def test_tenants_that_must_not_be_merged_here_join(self):
        core = self.core()
        for tenant in "aba":
            submit(core, 3, now=100.0, tenant=tenant, join_key="j", merge_key=tenant)
            dispatched(core)
        core.tick(now=core.next_wakeup())
        assert {batch.tickets[0].tenant for batch in dispatched(core)} == {"a", "b"}
        # Two rows are free beside the six of these.
        submit(core, 6, now=100.09, tenant="c", join_key="j", merge_key="c")
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 2

    def test_a_lesser_one_joins_only_where_it_lengthens_a_more_important_one_by_little(self):
        core = self.core(classes=(class_settings("interactive", 16, wait_s=5.0), BACKGROUND))
        learn = core._lanes.by_name["m"].estimator
        for backend in core._fleet._backends.values():
            for estimator in (learn, backend.estimator("m", learn)):
                for rows in (1, 8) * 50:
                    estimator.learn("j", rows, 0.1 + 0.04 * rows)
        submit(core, 2, now=100.0, join_key="j")
        assert len(dispatched(core)) == 2
        # A row takes 140 ms and two take 180, which is more than a quarter longer.
        submit(core, 8, now=100.0, join_key="j", priority_class="background")
        assert dispatched(core) == []
        # But a third is less than that of two more important ones.
        submit(core, 1, now=100.0, join_key="j")
        assert [batch.tickets[0].priority_class for batch in dispatched(core)] == ["interactive", "background"]

    def test_steps_of_different_sequences_join(self):
        core = self.core(backend_state(sequence_slots=8))
        for name in "abcd":
            step = Step(name, start=True, end=False, idle_s=9.0, pipelined=False)
            submit(core, now=100.0, join_key="j", step=step)
        assert len(dispatched(core)) == 4


class TestGathering:
    """A model whose queue delay is 1 s, and that takes four rows at once."""

    @staticmethod
    def core():
        return ready_core(backend_state(queue_delay_s=1.0, delayed_below=4), classes=UNHURRIED)

    def test_what_comes_within_a_tenth_of_the_delay_goes_as_one(self):
        core = self.core()
        first = submit(core, now=1.0, merge_key="k", join_key="j")
        assert dispatched(core) == []
        assert core.next_wakeup() == pytest.approx(1.1)
        second = submit(core, now=1.05, merge_key="k", join_key="j")
        assert dispatched(core) == []
        core.tick(now=core.next_wakeup())
        (batch,) = dispatched(core)
        assert batch.tickets == (*first, *second)

    def test_as_many_as_triton_waits_for_go_at_once(self):
        core = self.core()
        submit(core, 4, now=1.0, merge_key="k", join_key="j")
        assert len(dispatched(core)) == 1

    def test_those_that_come_later_fill_the_execution_that_triton_holds(self):
        core = self.core()
        submit(core, 1, now=1.0, merge_key="k", join_key="j")
        assert dispatched(core) == []
        core.tick(now=core.next_wakeup())
        assert len(dispatched(core)) == 1
        submit(core, 3, now=1.2, merge_key="k", join_key="j")
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 3
        assert core._fleet.batch(1).started_at == 1.2

    def test_what_cannot_be_merged_goes_at_once(self):
        core = self.core()
        submit(core, 3, now=1.0, join_key="j")
        assert len(dispatched(core)) == 3


class TestGrowing:
    """A batch that lies ready is held while it may still grow: of this model a row takes 100 ms, and so do eight."""

    @staticmethod
    def core(service_s=0.1):
        core = ready_core(classes=UNHURRIED)
        for number in range(79, 99):
            submit(core, 1 + number % 2 * 7, now=float(number), merge_key="k")
            (batch,) = dispatched(core)
            core.complete(batch.batch_id, Verdict.SUCCEEDED, now=number + service_s)
        return core

    def test_it_leaves_a_fifth_of_a_batch_before_an_instance_is_free(self):
        core = self.core()
        submit(core, 8, now=100.0, merge_key="k")
        submit(core, 2, now=100.0, merge_key="k")
        assert len(dispatched(core)) == 1
        assert core.next_wakeup() == pytest.approx(100.08)
        submit(core, 3, now=100.07, merge_key="k")
        core.tick(now=core.next_wakeup())
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 5

    def test_a_full_one_leaves_at_once(self):
        core = self.core()
        submit(core, 16, now=100.0, merge_key="k")
        assert len(dispatched(core)) == 2

    def test_of_short_batches_none_is_held(self):
        core = self.core(service_s=0.004)
        submit(core, 10, now=100.0, merge_key="k")
        assert len(dispatched(core)) == 2


class TestStreams:
    """A model of one instance whose answers come in parts."""

    def test_where_a_lesser_class_has_no_place_a_more_important_one_has(self):
        core = ready_core(backend_state(streams=True), classes=UNHURRIED)
        submit(core, 4, priority_class="background")
        assert len(dispatched(core)) == 2
        (person,) = submit(core)
        assert [batch.tickets for batch in dispatched(core)] == [(person,)]

    def test_none_is_held_back(self):
        core = ready_core(backend_state(streams=True))
        submit(core)
        (batch,) = dispatched(core)
        core.complete(batch.batch_id, Verdict.SUCCEEDED, now=1.5)
        submit(core, 2, priority_class="background", now=2.0)
        assert len(dispatched(core)) == 2


class TestReturns:
    """Eight callers come back 5 ms after they are answered; a batch of theirs takes 100 ms, whatever its rows."""

    @pytest.fixture
    def loop(self):
        """The core, and a batch of all eight that leaves at 200.0; they began as groups of five and of three."""
        core = ready_core(classes=UNHURRIED)
        submit(core, 5, now=100.0, merge_key="k")
        batches = dispatched(core)
        submit(core, 3, now=100.005, merge_key="k")
        for number in range(40):
            batches += dispatched(core)
            answered = batches.pop(0)
            now = 100.1 + 0.1 * number
            core.complete(answered.batch_id, Verdict.SUCCEEDED, now=now)
            batches += dispatched(core)
            submit(core, len(answered.tickets), now=now + 0.005, merge_key="k")
            batches += dispatched(core)
            if (lead := core.next_wakeup()) is not None and lead < now + 0.1:
                core.tick(now=lead)
        (running,) = batches
        core.complete(running.batch_id, Verdict.SUCCEEDED, now=199.995)
        submit(core, 8, now=200.0, merge_key="k")
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 8
        return core, batch

    def test_the_next_batch_waits_until_all_callers_are_back(self, loop):
        core, running = loop
        core.complete(running.batch_id, Verdict.SUCCEEDED, now=200.1)
        submit(core, 3, now=200.103, merge_key="k")
        assert dispatched(core) == []
        submit(core, 5, now=200.105, merge_key="k")
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 8
        assert not core._lanes.held

    def test_it_waits_no_longer_than_the_window(self, loop):
        core, running = loop
        core.complete(running.batch_id, Verdict.SUCCEEDED, now=200.1)
        submit(core, 3, now=200.103, merge_key="k")
        assert dispatched(core) == []
        assert core.next_wakeup() == pytest.approx(200.125, abs=0.005)
        core.tick(now=200.1251)
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 3

    def test_a_batch_that_would_lie_ready_waits_for_who_rides_in_the_running_one(self, loop):
        core, running = loop
        submit(core, 1, now=200.05, merge_key="k")
        assert dispatched(core) == []
        core.tick(now=200.09)
        assert dispatched(core) == []
        core.complete(running.batch_id, Verdict.SUCCEEDED, now=200.1)
        submit(core, 7, now=200.105, merge_key="k")
        core.tick(now=200.1251)
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 8

    def test_an_answer_that_is_late_is_waited_for_as_long(self, loop):
        core, _ = loop
        submit(core, 1, now=200.05, merge_key="k")
        core.tick(now=200.09)
        assert dispatched(core) == []
        assert core.next_wakeup() == pytest.approx(200.125, abs=0.005)
        core.tick(now=200.1251)
        (batch,) = dispatched(core)
        assert len(batch.tickets) == 1

    @pytest.mark.parametrize(
        "other", [{"tenant": "quiet"}, {"merge_key": "l"}, {"deadline": 200.2}, {"merge_key": None}]
    )
    def test_others_wait_for_nobody(self, loop, other):
        core, running = loop
        core.complete(running.batch_id, Verdict.SUCCEEDED, now=200.1)
        submit(core, now=200.101, **{"merge_key": "k", **other})
        assert len(dispatched(core)) == 1

    def test_where_all_but_a_few_are_back_nobody_waits_for_those(self, loop):
        core, running = loop
        core.complete(running.batch_id, Verdict.SUCCEEDED, now=200.1)
        submit(core, 7, now=200.103, merge_key="k")
        assert len(dispatched(core)) == 1
