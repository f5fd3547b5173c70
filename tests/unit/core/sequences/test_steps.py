import pytest

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.events import Dispatch, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import Step, Ticket
from tests.unit.core.build import (
    UNHURRIED,
    backend_state,
    dispatched,
    pull,
    ready_core,
    submit,
    tenant_settings,
)


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
            core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=1.0)
        for sequence in ("1", "3", "5"):
            self.step(core, sequence=sequence)
        first, second = dispatched(core)
        assert (first.backend, second.backend) == ("a", "a")
        assert core.next_wakeup() is not None
        core.complete(first.batch_id, Verdict.SUCCEEDED, now=3.0)
        assert [(event.backend, event.tickets[0].step.sequence_id) for event in dispatched(core)] == [("a", "5")]

    def test_a_start_goes_where_there_is_a_place_when_its_turn_comes(self):
        core = ready_core(backend_state("a"), backend_state("b"), classes=UNHURRIED)
        for sequence in ("1", "2", "3", "4", "5"):
            self.step(core, sequence=sequence, start=True)
        out = {event.tickets[0].step.sequence_id: event for event in dispatched(core)}
        assert {sequence: event.backend for sequence, event in out.items()} == {"1": "a", "2": "b", "3": "a", "4": "b"}
        core.complete(out["2"].batch_id, Verdict.SUCCEEDED, now=2.0)
        assert [event.backend for event in dispatched(core)] == ["b"]

    def test_a_backend_that_goes_takes_its_own_sequences_along_alone(self):
        core = ready_core(backend_state("a"), backend_state("b"), default=tenant_settings(max_in_flight=2))
        for sequence in ("1", "2"):
            self.step(core, sequence=sequence, start=True)
        assert [event.backend for event in dispatched(core)] == ["a", "b"]
        behind_first, behind_second = (self.step(core, sequence=sequence) for sequence in ("1", "2"))
        queued = self.step(core, sequence="3", start=True)
        core.set_backend(backend_state("a", ready=False), now=2.0)
        assert self.ends(core) == [(behind_first, Outcome.SEQUENCE_LOST)]
        core.complete(2, Verdict.SUCCEEDED, now=3.0)
        sent = [(event.backend, event.tickets[0]) for event in dispatched(core)]
        assert sent in ([("b", queued)], [("b", behind_second)])
        core.complete(3, Verdict.SUCCEEDED, now=4.0)
        sent += [(event.backend, event.tickets[0]) for event in dispatched(core)]
        assert {ticket for _, ticket in sent} == {queued, behind_second}

    def test_a_start_without_a_backend_is_lost_where_the_last_one_goes(self):
        core = ready_core(default=tenant_settings(max_in_flight=1))
        self.step(core, sequence="1", start=True)
        pull(core)
        queued, behind = self.step(core, sequence="2", start=True), self.step(core, sequence="2")
        core.set_backend(backend_state(ready=False), now=2.0)
        assert set(self.ends(core)) == {(queued, Outcome.SEQUENCE_LOST), (behind, Outcome.SEQUENCE_LOST)}


class TestSlots:
    """A backend with many places for batches that keeps the state of two sequences for 10 s."""

    @staticmethod
    def core(*names: str, slots: int = 2, **settings) -> Scheduler:
        capacity = {"m": ModelCapacity(instances=8, max_batch_size=1, sequence_slots=slots)}
        return ready_core(*(BackendState(name, True, capacity) for name in names or ("a",)), **settings)

    step = staticmethod(TestSequences.step)

    @staticmethod
    def sent(core) -> list[tuple[str, str]]:
        """Sequence and backend of what goes out now; all of it is answered at once."""
        out = dispatched(core)
        for event in out:
            core.complete(event.batch_id, Verdict.SUCCEEDED, now=core._now)
        return [(event.tickets[0].step.sequence_id, event.backend) for event in out]

    def test_a_start_beyond_the_slots_waits_for_an_end_and_keeps_nobody_waiting(self):
        core = self.core()
        for sequence in "1234":
            self.step(core, sequence=sequence, start=True)
        assert self.sent(core) == [("1", "a"), ("2", "a")]
        self.step(core, sequence="1")
        submit(core)
        assert len(dispatched(core)) == 2
        assert core.snapshot().queued == 2
        self.step(core, sequence="2", end=True)
        assert self.sent(core) == [("2", "a")]
        assert self.sent(core) == [("3", "a")]
        assert core.snapshot().models[-1].sequences == {"a": 2}

    def test_a_slot_that_is_forgotten_is_found_at_its_time(self):
        core = self.core(slots=1)
        for sequence in "12":
            self.step(core, sequence=sequence, start=True)
        assert self.sent(core) == [("1", "a")]
        assert dispatched(core) == []
        assert core.next_wakeup() == pytest.approx(11.0)
        core.tick(now=10.9)
        assert self.sent(core) == []
        core.tick(now=core.next_wakeup())
        assert self.sent(core) == [("2", "a")]
        assert core.next_wakeup() is None

    def test_a_slot_that_an_arrival_finds_forgotten_goes_to_who_waits(self):
        core = self.core(slots=1, max_sequences=4)
        for sequence in "12":
            self.step(core, sequence=sequence, start=True)
        self.sent(core)
        self.step(core, sequence="1", now=12.0)
        assert [event.outcome for event in pull(core) if isinstance(event, Reject)] == [Outcome.SEQUENCE_LOST]
        assert core.snapshot().models[-1].sequences == {"a": 1}

    def test_starts_that_wait_for_a_slot_share_by_tenant_and_expire(self):
        core = self.core(slots=1)
        self.step(core, sequence="0", start=True)
        self.sent(core)
        for number in range(3):
            self.step(core, sequence=f"flood{number}", start=True, tenant="flood")
        self.step(core, sequence="lone", start=True, tenant="lone")
        self.step(core, sequence="late", start=True, tenant="late", deadline=2.0)
        core.tick(now=2.0)
        assert [(event.ticket.tenant, event.outcome) for event in pull(core)] == [("late", Outcome.DEADLINE_EXPIRED)]
        order = []
        for sequence, tenant in (("0", "acme"), ("flood0", "flood")):
            self.step(core, sequence=sequence, tenant=tenant, end=True, now=2.0)
            self.sent(core)
            order += self.sent(core)
        assert order == [("flood0", "a"), ("lone", "a")]

    def test_another_backend_with_a_slot_takes_the_start(self):
        core = self.core("a", "b", slots=1)
        for sequence in "123":
            self.step(core, sequence=sequence, start=True)
        assert self.sent(core) == [("1", "a"), ("2", "b")]

    def test_a_restart_keeps_its_slot(self):
        core = self.core(slots=1)
        self.step(core, sequence="1", start=True)
        self.sent(core)
        self.step(core, sequence="1", start=True)
        assert self.sent(core) == [("1", "a")]

    def test_an_arrival_in_the_place_of_another_that_is_no_step_leaves_no_gap(self):
        core = ready_core(max_queued=1)
        for _ in range(2):
            submit(core)
            dispatched(core)
        submit(core, priority_class="background")
        submit(core)
        assert [event.outcome for event in pull(core)] == [Outcome.DISPLACED]

    def test_invented_names_share_what_one_tenant_may_have(self):
        core = ready_core(max_sequences=4, max_tenants=1)
        for tenant in ("known", "invented1", "invented2", "invented3"):
            submit(core, tenant=tenant, step=Step("7", True, False, 10.0, False))
        refused = [event for event in pull(core) if isinstance(event, Reject)]
        assert [(event.ticket.tenant, event.outcome) for event in refused] == [
            ("invented3", Outcome.TOO_MANY_SEQUENCES)
        ]
        assert "tenant '(others)' has 2 open" in refused[0].detail


class TestLeaving:
    """A step that leaves its queue, or whose backend goes, leaves nothing behind and takes only its own along."""

    step = staticmethod(TestSequences.step)
    ends = staticmethod(TestSequences.ends)

    def test_a_current_step_that_is_cancelled_in_its_queue_is_not_counted_there_any_more(self):
        core = ready_core(default=tenant_settings(max_in_flight=1))
        self.step(core, sequence="1", start=True)
        pull(core)
        waiting = self.step(core, sequence="2", start=True)
        core.cancel(waiting.ticket_id, now=1.0)
        assert (core.snapshot().queued, core.snapshot().models[0].queued["interactive"]) == (0, 0)

    def test_every_sequence_of_a_backend_that_goes_is_lost(self):
        core = ready_core(backend_state("a"), backend_state("b"), default=tenant_settings(max_in_flight=4))
        for sequence in "1234":
            self.step(core, sequence=sequence, start=True)
        pull(core)
        behind = [self.step(core, sequence=sequence) for sequence in "1234"]
        core.set_backend(backend_state("a", models=("n",)), now=2.0)
        assert self.ends(core) == [(behind[0], Outcome.SEQUENCE_LOST), (behind[2], Outcome.SEQUENCE_LOST)]

    def test_a_backend_that_changes_otherwise_keeps_its_sequences(self):
        core = ready_core()
        self.step(core, start=True)
        pull(core)
        self.step(core)
        core.set_backend(backend_state(instances=3), now=2.0)
        assert pull(core) == []

    def test_a_sequence_that_was_lost_begins_anew_where_starts_wait(self):
        core = ready_core(backend_state("a"), backend_state("b"))
        self.step(core, start=True)
        (batch,) = dispatched(core)
        again = self.step(core, start=True)
        core.set_backend(backend_state("a", ready=False), now=2.0)
        core.complete(batch.batch_id, Verdict.LOST, now=3.0)
        assert [(event.backend, event.tickets) for event in pull(core) if isinstance(event, Dispatch)] == [
            ("b", (again,))
        ]
        assert core.snapshot().models[-1].sequences == {"b": 1}

    def test_a_start_that_cannot_end_in_time_behind_other_starts_is_refused(self):
        core = ready_core(classes=UNHURRIED)
        for number in range(20):
            self.step(core, sequence=str(number), start=True, now=float(number))
            core.complete(dispatched(core)[0].batch_id, Verdict.SUCCEEDED, now=number + 0.1)
        self.step(core, sequence="first", start=True, now=50.0)
        assert len(dispatched(core)) == 1
        late = self.step(core, sequence="late", start=True, now=50.0, deadline=50.05)
        assert self.ends(core) == [(late, Outcome.DEADLINE_INFEASIBLE)]
