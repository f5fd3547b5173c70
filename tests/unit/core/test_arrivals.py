import pytest

from scheduler.core.events import Dispatch, Evict, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.rate import RateUnit
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import QueuePolicy, Step, Ticket, TicketState
from tests.unit.core.build import (
    BACKGROUND,
    ONE_CLASS,
    backend_state,
    class_settings,
    dispatched,
    failed_pair,
    pull,
    ready_core,
    submit,
    tenant_settings,
)


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

    def test_rows_are_counted_and_a_request_of_more_than_a_burst_is_let_in_by_a_full_bucket(self):
        core = ready_core(default=tenant_settings(rate_per_s=10, burst=4, unit=RateUnit.ROWS))
        submit(core, 3, rows=2, now=1.0)
        (refused,) = [event for event in pull(core) if isinstance(event, Reject)]
        assert (refused.pushback_s, refused.detail) == (pytest.approx(0.2), "10 rows a second, 4 at once")
        submit(core, rows=8, now=2.0)
        submit(core, rows=1, now=2.0)
        (refused,) = [event for event in pull(core) if isinstance(event, Reject)]
        assert refused.pushback_s == pytest.approx(0.5)

    def test_seconds_of_service_are_taken_as_expected_when_a_ticket_comes_and_as_they_were_when_it_has_ended(self):
        core = ready_core(default=tenant_settings(rate_per_s=0.5, burst=0.02, unit=RateUnit.SECONDS))
        # Nothing is known of the model yet: 5 ms a row.
        submit(core, 3, rows=2, now=1.0)
        refused, first, _ = pull(core)
        assert (refused.outcome, refused.pushback_s) == (Outcome.RATE_LIMITED, pytest.approx(0.02))
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=1.1)
        pull(core)
        submit(core, rows=2, now=1.1)
        (event,) = [event for event in pull(core) if isinstance(event, Reject)]
        # The bucket was full again when the first had taken 0.1 s in place of 0.01; two rows now need a full one.
        assert event.pushback_s == pytest.approx(0.09 / 0.5)

    def test_a_steps_cost_is_that_of_its_own_queue(self):
        core = ready_core(default=tenant_settings(rate_per_s=0.5, burst=0.02, unit=RateUnit.SECONDS))
        submit(core, 2, rows=4, step=Step("7", True, False, 10.0, False), now=1.0)
        assert core.snapshot().ended["RATE_LIMITED"] == 1

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
        submit(core, now=50.0)
        assert len(dispatched(core)) == 1
        (refused,) = submit(core, now=50.0, deadline=50.09)
        assert pull(core) == [Reject(refused, Outcome.DEADLINE_INFEASIBLE, None)]
        submit(core, now=50.0, deadline=50.11)
        assert len(dispatched(core)) == 1

    def test_what_waits_ahead_counts(self):
        core = self.core()
        submit(core, 10, now=50.0)
        assert len(dispatched(core)) == 2
        submit(core, now=50.0, tenant="other", deadline=50.25)
        assert [event.outcome for event in pull(core)] == [Outcome.DEADLINE_INFEASIBLE]

    def test_while_an_instance_is_idle_nothing_is_refused_and_after_a_minute_of_silence_neither(self):
        core = self.core()
        submit(core, now=50.0, merge_key="k", deadline=50.001)
        assert len(dispatched(core)) == 1
        core = self.core()
        submit(core, now=120.0, merge_key="k")
        assert len(dispatched(core)) == 1
        (behind,) = submit(core, now=120.0, merge_key="k", deadline=120.001)
        assert pull(core) == []
        assert behind.state is TicketState.QUEUED

    def test_since_when_nobody_found_an_instance_idle_is_noted_by_those_that_are_queued(self):
        core = ready_core(backend_state(instances=2), classes=ONE_CLASS)
        submit(core, now=1.0)
        submit(core, now=2.0)  # one waits already
        lane = core._lanes.of("m")
        assert lane.idle_at == 1.0
        assert len(dispatched(core)) == 2
        submit(core, now=3.0)
        assert lane.idle_at == 1.0


class TestOther:
    def test_nobody_knows_how_long_a_missed_backend_is_away(self):
        core = ready_core(outage_s=30.0)
        submit(core)
        core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=2.0)
        core.set_backend(backend_state(ready=False), now=3.0)
        submit(core, now=3.0, deadline=3.5)
        assert pull(core) == []

    def test_draining_refuses_whatever_comes(self):
        core = ready_core()
        core.drain(now=1.0)
        (late,) = submit(core)
        assert [(event.ticket, event.outcome) for event in pull(core)] == [(late, Outcome.DRAINING)]

    def test_nothing_is_infeasible_for_a_model_that_never_had_a_ticket(self):
        core = ready_core()
        submit(core, deadline=1.001)
        assert len(dispatched(core)) == 1

    def test_a_step_is_queued_and_one_without_a_start_refused(self):
        core = ready_core()
        start, lost = (Step(name, name == "7", False, 10.0, False) for name in ("7", "8"))
        submit(core, step=lost)
        assert [event.outcome for event in pull(core)] == [Outcome.SEQUENCE_LOST]
        submit(core, step=start)
        assert len(dispatched(core)) == 1


class TestQueuePolicy:
    POLICY = QueuePolicy(0, 4, 0.5, delays=False)

    def test_as_many_wait_as_the_model_says_and_the_rest_is_refused_at_once(self):
        core = ready_core(backend_state(max_batch_size=0), classes=ONE_CLASS)
        tickets = submit(core, 20, policy=self.POLICY)
        events = pull(core)
        refused = [event for event in events if isinstance(event, Reject)]
        # One runs, four wait: as Triton with one instance.
        assert [event.ticket for event in refused] == tickets[5:]
        assert {event.outcome for event in refused} == {Outcome.QUEUE_FULL}
        assert all(event.pushback_s is not None for event in refused)
        assert refused[0].detail == "the configuration of its model lets 4 requests wait"
        # One more lies at the backend, behind the one that runs: it waits there.
        submit(core, policy=self.POLICY, now=1.1)
        assert [event.outcome for event in pull(core)] == [Outcome.QUEUE_FULL]

    def test_a_place_that_is_free_again_is_taken(self):
        core = ready_core(backend_state(max_batch_size=0), classes=ONE_CLASS)
        submit(core, 5, policy=self.POLICY)
        first = pull(core)[0]
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=1.2)
        submit(core, 2, policy=self.POLICY, now=1.3)
        assert [event.outcome for event in pull(core) if isinstance(event, Reject)] == [Outcome.QUEUE_FULL]

    def test_a_model_without_a_policy_is_not_bounded_by_one(self):
        core = ready_core(backend_state(max_batch_size=0), classes=ONE_CLASS)
        submit(core, 50)
        assert not [event for event in pull(core) if isinstance(event, Reject)]
