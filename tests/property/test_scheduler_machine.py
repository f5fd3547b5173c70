"""Any sequence of inputs, against an account of the same tickets kept outside the scheduler."""

from collections import Counter

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.core.backend import BackendState, ModelCapacity
from scheduler.core.events import Abandon, Dispatch
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import Ticket
from tests.unit.core.build import class_settings, core_settings, tenant_settings

CLASSES = (
    class_settings("interactive", 16, max_queued=8, wait_s=0.05),
    class_settings("standard", 4, max_queued=8, wait_s=0.5),
    class_settings("background", 1, max_queued=12),
)
TENANTS = {
    "tight": tenant_settings(max_in_flight=1, max_queued=5),
    "heavy": tenant_settings(weight=4, max_in_flight=9, max_queued=9),
    "odd": tenant_settings(weight=0.3, max_in_flight=3, max_queued=9),
}
SETTINGS = core_settings(
    CLASSES, TENANTS, default=tenant_settings(max_in_flight=6, max_queued=6), max_queued=20, queue_bytes=200
)
MODELS = ("m", "n")
CAPACITIES = st.builds(ModelCapacity, instances=st.integers(1, 3), max_batch_size=st.sampled_from([8, 4, 1, 0]))
USUAL = dict.fromkeys(MODELS, ModelCapacity(1, 4))
OFFERS = st.dictionaries(st.sampled_from(MODELS), CAPACITIES)


class SchedulerMachine(RuleBasedStateMachine):
    """Feeds a scheduler; `waiting`, `in_flight` and `ended` are the account of the outside."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(SETTINGS)
        self.now = 0.0
        self.last_id = 0
        self.draining = False
        self.backends: dict[str, BackendState] = {}
        self.live: dict[int, Ticket] = {}
        self.in_flight: dict[int, Dispatch] = {}
        self.retrying: set[int] = set()
        self.tried_twice: set[int] = set()
        self.resent: set[int] = set()
        self.given_up: list[int] = []
        self.cancelled_in_flight: set[int] = set()
        self.ended: Counter[str] = Counter()
        self.virtual: dict[int, tuple[object, float]] = {}
        self._set_backend(BackendState("a", True, USUAL))

    # ---- rules

    @rule(
        priority_class=st.sampled_from([each.name for each in CLASSES]),
        tenant=st.sampled_from(["tight", "heavy", "odd", "x", "y"]),
        model=st.sampled_from(("m", "m", "m", "m", "n", "n", "unknown")),
        rows=st.sampled_from([1, 1, 1, 2, 3, 9]),
        queue_bytes=st.sampled_from([0, 1, 40]),
        merge_key=st.sampled_from(["k", "k", "k", "l", None]),
        patience=st.sampled_from([None, None, None, None, 0.5, 3.0, 0.0]),
        count=st.integers(1, 6),
    )
    def submit(self, priority_class, tenant, model, rows, queue_bytes, merge_key, patience, count):
        deadline = None if patience is None else self.now + patience
        for _ in range(count):
            self.last_id += 1
            ticket = Ticket(self.last_id, priority_class, tenant, model, rows, queue_bytes, merge_key, deadline)
            self.live[ticket.ticket_id] = ticket
            self.core.submit(ticket, now=self.now)
        self._pull()

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(), verdict=st.sampled_from([Verdict.SUCCEEDED, Verdict.FAILED, *Verdict]), later=st.floats(0, 0.5)
    )
    def complete(self, data, verdict, later):
        self.now += later
        self._complete(data.draw(st.sampled_from(sorted(self.in_flight))), verdict)
        self._pull()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def cancel(self, data):
        self._cancel(data.draw(st.sampled_from(sorted(self.live))))
        self._pull()

    @rule(ticket_id=st.integers(-5, 0))
    def cancel_unknown(self, ticket_id):
        self.core.cancel(ticket_id, now=self.now)
        self._pull()

    @rule(ready=st.sampled_from([True, True, False]), models=OFFERS)
    def change_one_backend(self, ready, models):
        self._set_backend(BackendState("b", ready, models))
        self._pull()

    @rule(capacity=CAPACITIES)
    def resize_the_other(self, capacity):
        self._set_backend(BackendState("a", True, dict.fromkeys(MODELS, capacity)))
        self._pull()

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), verdict=st.sampled_from(Verdict), gone=st.sampled_from([{}, {"n": ModelCapacity(1, 4)}]))
    def outage_in_which_a_batch_ends(self, data, verdict, gone):
        for name in list(self.backends):
            self._set_backend(BackendState(name, bool(gone), gone))
        self._pull()
        if self.in_flight:
            self._complete(data.draw(st.sampled_from(sorted(self.in_flight))), verdict)
            self._pull()
            self.nobody_waits_where_no_backend_could_ever_serve()
        self._recover()

    @rule(passed=st.floats(0, 2))
    def time_passes(self, passed):
        self.now += passed
        self.core.tick(now=self.now)
        self._pull()

    @precondition(lambda self: self.core.next_wakeup() is not None)
    @rule()
    def wakeup(self):
        self.now = max(self.now, self.core.next_wakeup())
        self.core.tick(now=self.now)
        self._pull()
        later = self.core.next_wakeup()
        assert later is None or later > self.now

    @precondition(lambda self: self.last_id > 40)
    @rule()
    def drain(self):
        self.draining = True
        self.core.drain(now=self.now)
        self._pull()

    # ---- the account

    def _set_backend(self, state: BackendState) -> None:
        self.backends[state.name] = state
        self.core.set_backend(state, now=self.now)

    def _recover(self) -> None:
        self._set_backend(BackendState("a", True, USUAL))
        self._pull()

    def _complete(self, batch_id: int, verdict: Verdict) -> None:
        ended = self.core.complete(batch_id, verdict, now=self.now)
        tickets = self.in_flight.pop(batch_id).tickets
        assert {ticket.ticket_id for ticket in ended} <= {ticket.ticket_id for ticket in tickets} - self.retrying
        for ticket in ended:
            self._end(ticket, Outcome.COMPLETED if verdict is Verdict.SUCCEEDED else Outcome.FAILED)
        for ticket in tickets:
            self.cancelled_in_flight.discard(ticket.ticket_id)
            if ticket.ticket_id not in self.live:
                continue
            if verdict in {Verdict.LOST, Verdict.UNAVAILABLE}:
                self._lost(ticket.ticket_id)
                continue
            assert verdict in {Verdict.FAILED, Verdict.GARBLED}
            assert len(tickets) > 1
            assert ticket.ticket_id not in self.tried_twice
            self.retrying.add(ticket.ticket_id)
            self.tried_twice.add(ticket.ticket_id)

    def _lost(self, ticket_id: int) -> None:
        """A live ticket's backend was lost: it goes once more, or an event tells that it has ended."""
        if ticket_id not in self.resent:
            self.resent.add(ticket_id)
            self.retrying.add(ticket_id)

    def _cancel(self, ticket_id: int) -> None:
        ticket = self.live[ticket_id]
        if any(ticket in batch.tickets for batch in self.in_flight.values()):
            self.cancelled_in_flight.add(ticket_id)
        self.core.cancel(ticket_id, now=self.now)
        self._drop_expired()
        if ticket_id in self.live:
            self._end(ticket, Outcome.CANCELLED)

    def _drop_expired(self) -> None:
        """Take in what the last input evicted before anything else is looked at."""
        while self.core._events:
            self._take(self.core.next_event())

    def _pull(self) -> None:
        while (event := self.core.next_event()) is not None:
            self._take(event)

    def _take(self, event) -> None:
        if isinstance(event, Abandon):
            if event.batch_id in self.core._fleet._given_up:
                self.given_up.append(event.batch_id)
                for ticket in self.in_flight.pop(event.batch_id).tickets:
                    self.cancelled_in_flight.discard(ticket.ticket_id)
                    if ticket.ticket_id in self.live:
                        self._lost(ticket.ticket_id)
            return
        if not isinstance(event, Dispatch):
            self._end(event.ticket, event.outcome)
            return
        assert event.batch_id not in self.in_flight
        flying = {ticket.ticket_id for batch in self.in_flight.values() for ticket in batch.tickets}
        for ticket in event.tickets:
            assert ticket.ticket_id in self.live
            assert ticket.ticket_id not in flying
            assert ticket.deadline is None or ticket.deadline > self.now
            assert ticket.ticket_id not in self.retrying or len(event.tickets) == 1
            self.retrying.discard(ticket.ticket_id)
        self._check_shape(event)
        self.in_flight[event.batch_id] = event

    def _check_shape(self, event: Dispatch) -> None:
        state = self.backends[event.backend]
        assert len({(ticket.model, ticket.merge_key) for ticket in event.tickets}) == 1
        capacity = state.models[event.tickets[0].model]
        assert state.ready
        if len(event.tickets) > 1:
            assert event.tickets[0].merge_key is not None
            assert sum(ticket.rows for ticket in event.tickets) <= capacity.max_batch_size
        assert self._flying(event.backend, event.tickets[0].model) <= capacity.instances

    def _flying(self, backend: str, model: str) -> int:
        return sum(
            1 for batch in self.in_flight.values() if batch.backend == backend and batch.tickets[0].model == model
        )

    def _end(self, ticket: Ticket, outcome: Outcome) -> None:
        del self.live[ticket.ticket_id]  # a second ending is a KeyError
        self.retrying.discard(ticket.ticket_id)
        self.ended[outcome.name] += 1

    def _waiting(self) -> list[Ticket]:
        flying = {ticket.ticket_id for batch in self.in_flight.values() for ticket in batch.tickets}
        return [t for t in self.live.values() if t.ticket_id not in flying and t.ticket_id not in self.retrying]

    def _held(self) -> Counter[str]:
        """Places in flight by tenant: at a backend, cancelled there, or between two tries."""
        held = Counter(ticket.tenant for batch in self.in_flight.values() for ticket in batch.tickets)
        return held + Counter(self.live[ticket_id].tenant for ticket_id in self.retrying)

    def _free(self, model: str, *, ready_batches: int) -> bool:
        """Whether a ready backend has an instance idle, or a place for so many batches beyond its instances."""
        return any(
            state.ready
            and model in state.models
            and self._closed(name, model)
            and self._flying(name, model) < state.models[model].instances + ready_batches
            for name, state in self.backends.items()
        )

    def _closed(self, backend: str, model: str) -> bool:
        """Whether the breaker lets a batch of the model out."""
        breaker = self.core._fleet._backends[backend].breakers.get(model)
        return breaker is None or breaker.takes_batch

    def _able(self, model: str) -> list[Ticket]:
        """Tickets of the model that wait and may run."""
        held = self._held()
        able = [t for t in self._waiting() if held[t.tenant] < SETTINGS.for_tenant(t.tenant).max_in_flight]
        retrying = [self.live[ticket_id] for ticket_id in self.retrying]
        return [ticket for ticket in able + retrying if ticket.model == model]

    # ---- invariants

    @invariant()
    def bounds_hold(self):
        waiting = self._waiting()
        assert len(waiting) <= SETTINGS.max_queued
        assert sum(ticket.queue_bytes for ticket in waiting) <= SETTINGS.queue_bytes
        by_class = Counter(ticket.priority_class for ticket in waiting)
        assert all(by_class[each.name] <= each.max_queued for each in CLASSES)
        by_tenant = Counter(ticket.tenant for ticket in waiting)
        assert all(count <= SETTINGS.for_tenant(name).max_queued for name, count in by_tenant.items())

    @invariant()
    def caps_hold(self):
        assert all(count <= SETTINGS.for_tenant(name).max_in_flight for name, count in self._held().items())

    @invariant()
    def no_instance_idles_while_someone_may_run(self):
        for model in MODELS:
            assert not (self._free(model, ready_batches=0) and self._able(model))

    @invariant()
    def a_place_stays_free_only_until_a_time(self):
        """Where a batch could lie ready and does not, it is held, and a wake-up is due."""
        for model in MODELS:
            if self._free(model, ready_batches=1) and self._able(model):
                assert self.core._held[model] > self.now
                assert self.core.next_wakeup() <= self.core._held[model]

    @invariant()
    def the_most_important_class_is_never_held(self):
        for model in MODELS:
            if self._free(model, ready_batches=1):
                turn = self.core._lanes[model].next_turn() if model in self.core._lanes else None
                assert turn is None or turn.queue.rank > 0

    @invariant()
    def nobody_waits_where_no_backend_could_ever_serve(self):
        offered = {model for state in self.backends.values() if state.ready for model in state.models}
        flying = {ticket.ticket_id for batch in self.in_flight.values() for ticket in batch.tickets}
        assert all(t.model in offered or t.ticket_id in flying for t in self.live.values())

    @invariant()
    def the_snapshot_agrees(self):
        snapshot, waiting, held = self.core.snapshot(), self._waiting(), self._held()
        assert (snapshot.queued, snapshot.queue_bytes) == (len(waiting), sum(t.queue_bytes for t in waiting))
        assert snapshot.in_flight == sum(len(batch.tickets) for batch in self.in_flight.values())
        assert {name: n for name, n in snapshot.ended.items() if n} == dict(self.ended)
        queued = Counter(ticket.tenant for ticket in waiting)
        assert {t.name: (t.queued, t.in_flight) for t in snapshot.tenants} == {
            name: (queued[name], held[name]) for name in queued | held
        }
        by_class = Counter(ticket.priority_class for ticket in waiting)
        assert {each.name: each.queued for each in snapshot.classes} == {c.name: by_class[c.name] for c in CLASSES}
        for model in snapshot.models:
            here = Counter(ticket.priority_class for ticket in waiting if ticket.model == model.name)
            assert model.queued == {each.name: here[each.name] for each in CLASSES}
            assert model.retrying == sum(1 for i in self.retrying if self.live[i].model == model.name)
        for backend in snapshot.backends:
            flying = {model: self._flying(backend.name, model) for model in MODELS}
            assert {model: n for model, n in backend.in_flight.items() if n} == {m: n for m, n in flying.items() if n}

    @invariant()
    def the_next_wakeup_is_the_earliest_deadline_or_end_of_holding(self):
        deadlines = [ticket.deadline for ticket in self.live.values() if ticket.deadline is not None]
        others = [*self.core._held.values(), *self.core._fleet.wakeups()]
        assert self.core.next_wakeup() == min([*deadlines, *others], default=None)

    @invariant()
    def virtual_time_never_goes_back(self):
        for lane in self.core._lanes.values():
            for clock in (lane.virtual, *(queue.virtual for queue in lane.classes)):
                _, before = self.virtual.get(id(clock), (clock, 0.0))
                assert before <= clock.now <= clock.latest or clock.latest == 0.0
                self.virtual[id(clock)] = (clock, clock.now)

    @invariant()
    def idle_means_that_nothing_is_left(self):
        assert self.core.idle == (not self.live and not self.in_flight and not self.given_up)

    def teardown(self):
        """End everything one way or another: nothing may be left inside."""
        for ticket_id in list(self.live)[::2]:
            if ticket_id in self.live:
                self._cancel(ticket_id)
        self._recover()
        for _ in range(1000):
            if not self.in_flight and not self.live:
                break
            self.now += 40.0 if not self.in_flight else 0.1  # longer than any breaker stays open
            if self.in_flight:
                self._complete(min(self.in_flight), Verdict.SUCCEEDED)
            self.core.tick(now=self.now)
            self._pull()
        for batch_id in self.given_up:
            assert self.core.complete(batch_id, Verdict.SUCCEEDED, now=self.now) == []
        self._pull()
        assert self.core.idle
        assert not self.live
        assert self.core.next_wakeup() is None or self.core._fleet._opened
        assert [len(each) for each in (self.core._tickets, self.core._fleet, self.core._tenants)] == [0] * 3
        for lane in self.core._lanes.values():
            for queue in lane.classes:
                assert queue.first() is None
                assert queue.next_retry() is None
                kept = (queue._flows, queue._resting, queue._by_key, queue._key_counts, queue._heads)
                assert [len(each) for each in kept] == [0] * 5


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    deadline=None,
    max_examples=400,
    stateful_step_count=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
