"""The backends' side under any sequence of losses, hangs, answers and clock: numbered as in ARCHITECTURE.md."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.backends.breaker import LAST_BACKOFF_S, BreakerState
from scheduler.core.backends.patience import GONE, SILENT, Statement
from scheduler.core.events import Abandon, Dispatch, GiveUp, Inquire
from scheduler.core.outcome import Verdict
from scheduler.core.scheduler import Scheduler
from tests.unit.core.build import core_settings, make_ticket

MODELS = ("m", "n")
HANG_S = 5.0
OUTAGE_S = 5.0
LIMIT_S = 30.0
CAPACITY = ModelCapacity(instances=2, max_batch_size=4)
STATES = {name: BackendState(name, True, dict.fromkeys(MODELS, CAPACITY)) for name in "ab"}


class BackendMachine(RuleBasedStateMachine):
    """Two backends of two models; `sent` counts how often a ticket went out, `calls` are those not yet reported."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(core_settings(outage_s=OUTAGE_S, model_hang_s={"n": LIMIT_S}))
        # Batches about which nothing was told yet, and when a part of a batch last came.
        self.inquiries: dict[int, Inquire] = {}
        self.heard: dict[int, float] = {}
        self.may_go_again: set[int] = set()
        self.served_at = {(name, model): 0.0 for name in STATES for model in MODELS}
        self.now = 0.0
        self.calls: dict[int, Dispatch] = {}
        self.sent: dict[int, int] = {}
        self.live: set[int] = set()
        for state in STATES.values():
            self.core.set_backend(state, now=0.0)

    @rule(
        model=st.sampled_from(MODELS),
        priority_class=st.sampled_from(["interactive", "background"]),
        rows=st.integers(1, 4),
        patience=st.sampled_from([None, None, 1.0, 20.0]),
        count=st.integers(1, 5),
    )
    def submit(self, model, priority_class, rows, patience, count):
        for _ in range(count):
            deadline = None if patience is None else self.now + patience
            ticket = make_ticket(priority_class, model=model, rows=rows, merge_key="k", deadline=deadline)
            self.live.add(ticket.ticket_id)
            self.core.submit(ticket, now=self.now)
        self._pull()

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), later=st.floats(0, 0.5))
    def end(self, data, verdict, later):
        self.now += later
        self._report(data.draw(st.sampled_from(sorted(self.calls))), verdict)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_part_comes(self, data):
        batch_id = data.draw(st.sampled_from(sorted(self.calls)))
        self.core.hear_of(batch_id, now=self.now)
        self.heard[batch_id] = self.now
        self._pull()

    @precondition(lambda self: self.inquiries)
    @rule(data=st.data(), live=st.booleans(), served=st.booleans(), inferences=st.integers(0, 1))
    def statement(self, data, live, served, inferences):
        batch_id = data.draw(st.sampled_from(sorted(self.inquiries)))
        del self.inquiries[batch_id]
        if live and not served and batch_id in self.calls:
            self.may_go_again |= {ticket.ticket_id for ticket in self.calls[batch_id].tickets}
        self.core.testify(batch_id, Statement(live, served, inferences), now=self.now)
        self._pull()

    @rule(passed=st.sampled_from([0.1, 1.0, 6.0, 70.0]))
    def time_passes(self, passed):
        until = self.now + passed
        while (due := self.core.next_wakeup()) is not None and due <= until:
            self.now = max(self.now, due)
            self.core.tick(now=self.now)
            self._pull()
        self.now = until
        self.core.tick(now=self.now)
        self._pull()

    @rule(name=st.sampled_from("ab"), ready=st.booleans())
    def readiness(self, name, ready):
        self.core.set_backend(STATES[name] if ready else BackendState(name, False, {}), now=self.now)
        self._pull()

    @rule(name=st.sampled_from("ab"))
    def comes_back_without_a_model(self, name):
        self.core.set_backend(BackendState(name, False, {}), now=self.now)
        self.core.set_backend(BackendState(name, True, {"m": CAPACITY}), now=self.now)
        self._pull()

    def _report(self, batch_id: int, verdict: Verdict) -> None:
        call = self.calls.pop(batch_id)
        self.may_go_again |= {ticket.ticket_id for ticket in call.tickets}
        if verdict is Verdict.UNREACHED:  # it was not sent
            self.sent |= {ticket.ticket_id: self.sent[ticket.ticket_id] - 1 for ticket in call.tickets}
        for ticket in self.core.complete(batch_id, verdict, now=self.now):
            self.live.remove(ticket.ticket_id)
        self._pull()

    def _pull(self) -> None:
        while (event := self.core.next_event()) is not None:
            if isinstance(event, Dispatch):
                self.calls[event.batch_id] = event
                for ticket in event.tickets:
                    assert ticket.ticket_id in self.live
                    # What may still be going on is not done a second time.
                    assert not self.sent.get(ticket.ticket_id) or ticket.ticket_id in self.may_go_again
                    self.may_go_again.discard(ticket.ticket_id)
                    self.sent[ticket.ticket_id] = self.sent.get(ticket.ticket_id, 0) + 1
            elif isinstance(event, Inquire):
                self._check_silence(event)
                self.inquiries[event.batch_id] = event
            elif isinstance(event, GiveUp):
                self._check_silence(event)
                assert event.why in {GONE, SILENT, "models.n.hang_s"}
                assert event.why != SILENT or not self.core._fleet._backends[event.backend].state.ready
                assert event.why != "models.n.hang_s" or event.silent_s >= LIMIT_S - 1e-9
            elif not isinstance(event, Abandon):
                self.live.remove(event.ticket.ticket_id)  # a second ending is a KeyError

    def _check_silence(self, event: Inquire | GiveUp) -> None:
        """Nothing has come of the batch for as long as is said, and that is no less than any patience."""
        assert event.silent_s >= HANG_S - 1e-9
        assert self.now - event.silent_s >= self.heard.get(event.batch_id, 0.0) - 1e-9

    @invariant()
    def nobody_is_sent_more_than_three_times(self):
        """Once with others, once alone after a failure, and once more after a loss."""
        assert all(count <= 3 for count in self.sent.values())

    @invariant()
    def nobody_waits_for_a_batch_longer_than_its_models_limit_or_at_a_backend_that_is_silent_for_an_outage(self):
        for batch in self.core._fleet._batches.values():
            if batch.wanted and batch.started_at is not None:
                assert batch.model != "n" or batch.heard_at + LIMIT_S > self.now
                backend = self.core._fleet._backends[batch.backend]
                assert max(batch.heard_at + batch.patience_s, backend.silent_since + OUTAGE_S) > self.now

    @invariant()
    def every_call_that_is_out_or_was_given_up_will_be_reported(self):
        assert set(self.calls) == set(self.core._fleet._batches) | self.core._fleet._given_up

    @invariant()
    def a_breaker_that_is_not_closed_lets_out_one_probe_and_its_pause_ends(self):
        for backend in self.core._fleet._backends.values():
            for breaker in backend.breakers.values():
                if breaker.state is BreakerState.OPEN:
                    assert not breaker.takes_batch
                    assert (
                        self.now < breaker.retry_at <= self.now + LAST_BACKOFF_S
                        or not backend.state.ready
                        or (self.core.next_wakeup() <= breaker.retry_at)
                    )

    @invariant()
    def nobody_waits_for_a_model_that_no_backend_has_served_for_longer_than_an_outage(self):
        for backend in self.core._fleet._backends.values():
            self.served_at |= {(backend.name, model): self.now for model in backend.state.models if backend.state.ready}
        for ticket_id, ticket in self.core._endings.tickets.items():
            if ticket.waiting:
                served_at = max(at for key, at in self.served_at.items() if key[1] == ticket.model)
                assert self.now < served_at + OUTAGE_S or self.core._fleet.served(ticket.model), ticket_id

    @invariant()
    def the_limit_keeps_its_floor(self):
        for backend in self.core.snapshot().backends:
            assert 1.0 <= backend.concurrency.limit <= 2 * (CAPACITY.instances + 1)

    @invariant()
    def somebody_who_waits_waits_for_something(self):
        """Work conservation: whoever waits is woken by the end of a call, by a time, or has no ready backend."""
        waiting = {ticket_id for ticket_id, ticket in self.core._endings.tickets.items() if ticket.waiting}
        assert not waiting or self.calls or self.core.next_wakeup() is not None

    def teardown(self):
        for state in STATES.values():
            self.core.set_backend(state, now=self.now)
        self._pull()
        for _ in range(1000):
            if not self.calls and not self.live:
                break
            self.now += 0.01 if self.calls else LAST_BACKOFF_S
            self.core.tick(now=self.now)
            self._pull()
            if self.calls:
                self._report(min(self.calls), Verdict.SUCCEEDED)
        assert self.core.idle
        assert not self.live
        assert self.core.snapshot().tenants == ()


TestBackendMachine = BackendMachine.TestCase
TestBackendMachine.settings = settings(
    deadline=None, max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
