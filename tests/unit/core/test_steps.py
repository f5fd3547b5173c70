from scheduler.core.events import Dispatch
from scheduler.core.outcome import Outcome, Verdict
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
