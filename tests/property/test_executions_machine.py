"""Whatever comes in whatever order: what is in flight of a model is bounded by executions and by the rows of each."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from scheduler.core.events import Abandon, Dispatch
from scheduler.core.outcome import Verdict
from scheduler.core.ticket import Ticket
from tests.unit.core.build import backend_state, core_settings, make_ticket, ready_core

INSTANCES, MAX_BATCH_SIZE = 2, 8
PLACES = INSTANCES + 1


class ExecutionsMachine(RuleBasedStateMachine):
    """Tickets that can be merged here, or by Triton, or not at all, at a model that may have a queue delay."""

    def __init__(self) -> None:
        super().__init__()
        plain = backend_state("plain", instances=INSTANCES)
        delayed = backend_state("delayed", instances=INSTANCES, models=("n",), queue_delay_s=0.5, delayed_below=4)
        self.core = ready_core(plain, delayed, classes=core_settings().classes)
        self.now = 0.0
        self.out: dict[int, Dispatch] = {}
        self.tickets: dict[int, Ticket] = {}

    @rule(
        model=st.sampled_from("mn"),
        priority_class=st.sampled_from(["interactive", "background"]),
        rows=st.integers(1, MAX_BATCH_SIZE),
        merge_key=st.sampled_from(["a", "b", None]),
        join_key=st.sampled_from(["j", "k", None]),
        patience=st.sampled_from([None, 0.1, 5.0]),
        count=st.integers(1, 6),
    )
    def submit(self, model, priority_class, rows, merge_key, join_key, patience, count):
        for _ in range(count):
            ticket = make_ticket(priority_class, model=model, rows=rows, merge_key=merge_key, join_key=join_key)
            ticket.deadline = None if patience is None else self.now + patience
            self.tickets[ticket.ticket_id] = ticket
            self.core.submit(ticket, now=self.now)
        self._pull()

    @rule(data=st.data(), verdict=st.sampled_from([Verdict.SUCCEEDED] * 4 + [Verdict.FAILED, Verdict.LOST]))
    def complete(self, data, verdict):
        if self.out:
            batch_id = data.draw(st.sampled_from(sorted(self.out)))
            del self.out[batch_id]
            self.core.complete(batch_id, verdict, now=self.now)
            self._pull()

    @rule(data=st.data())
    def cancel(self, data):
        if self.tickets:
            self.core.cancel(data.draw(st.sampled_from(sorted(self.tickets))), now=self.now)
            self._pull()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.5, 3.0]))
    def wait(self, seconds):
        self.now += seconds
        self.core.tick(now=self.now)
        self._pull()

    def _pull(self) -> None:
        while (event := self.core.next_event()) is not None:
            if isinstance(event, Dispatch):
                self.out[event.batch_id] = event
            elif isinstance(event, Abandon) and self.out.pop(event.batch_id, None) is not None:
                self.core.complete(event.batch_id, Verdict.ABANDONED, now=self.now)

    @invariant()
    def executions_and_their_rows_are_bounded(self) -> None:
        for backend in self.core._fleet._backends.values():
            for executions in backend._in_flight.values():
                assert len(executions._open) <= PLACES
                # One execution more than the places: answers that come late hold none.
                assert executions.rows <= (PLACES + 1) * MAX_BATCH_SIZE
                assert executions.rows == sum(
                    part.rows for execution in set(executions._of.values()) for part in execution.parts.values()
                )
                for execution in executions._open:
                    assert 0 < execution.rows <= MAX_BATCH_SIZE
                    assert {part.started_at for part in execution.parts.values()} <= {execution.started_at}

    @invariant()
    def what_is_idle_has_nothing_waiting_for_long(self) -> None:
        """Nothing is held for longer than its time, so no request waits for an input that need not come."""
        snapshot = self.core.snapshot()
        if snapshot.queued and not self.out:
            assert self.core.next_wakeup() is not None


TestExecutions = ExecutionsMachine.TestCase
