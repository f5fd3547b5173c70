"""Any sequence of inputs, against an account of the same tickets kept outside the scheduler."""

from collections import Counter
from math import inf

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.core.backend import BackendState, ModelCapacity
from scheduler.core.caps import OTHERS
from scheduler.core.events import Abandon, Dispatch, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import Cap
from scheduler.core.ticket import Ticket
from tests.unit.core.build import class_settings, core_settings, tenant_settings

CLASSES = (
    class_settings("urgent", 1, max_queued=4, strict=True),
    class_settings("interactive", 16, max_queued=8, wait_s=0.05),
    class_settings("standard", 4, max_queued=8, wait_s=0.5, max_queue_bytes=120),
    class_settings("background", 1, max_queued=12),
)
RANKS = {settings.name: rank for rank, settings in enumerate(CLASSES)}
TENANTS = {
    "tight": tenant_settings(max_in_flight=1, max_queued=5),
    "heavy": tenant_settings(weight=4, max_in_flight=9, max_queued=9),
    "odd": tenant_settings(weight=0.3, max_in_flight=3, max_queued=9),
    "narrow": tenant_settings(
        max_rows_in_flight=4, max_queued=9, max_queue_bytes=80, model_caps={"m": Cap(2, None), "n": Cap(None, 3)}
    ),
    "metered": tenant_settings(rate_per_s=2, burst=3),
}
SETTINGS = core_settings(
    CLASSES,
    TENANTS,
    default=tenant_settings(max_in_flight=6, max_queued=6, rate_per_s=20, burst=9),
    max_queued=20,
    queue_bytes=200,
    max_tenants=2,
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
        self.abandoned: set[int] = set()
        self.cancelled_in_flight: set[int] = set()
        self.ended: Counter[str] = Counter()
        self.virtual: dict[int, tuple[object, float]] = {}
        self.arriving: Ticket | None = None
        self.tokens: dict[str, tuple[float, float]] = {}
        self._set_backend(BackendState("a", True, USUAL))

    # ---- rules

    @rule(
        priority_class=st.sampled_from([each.name for each in CLASSES]),
        tenant=st.sampled_from(["tight", "heavy", "odd", "narrow", "metered", "x", "y", "z", OTHERS]),
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
            self.arriving = ticket
            self.core.submit(ticket, now=self.now)
            self._drop_expired()
            if ticket.ticket_id in self.live:
                self._let_in(ticket)
            self.arriving = None
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
        while self.core._endings.events:
            self._take(self.core.next_event())

    def _let_in(self, ticket: Ticket) -> None:
        """Take a token of the bucket that the outside keeps for each tenant with a rate."""
        limits = SETTINGS.for_tenant(ticket.holder.name)
        if limits.rate_per_s is None:
            return
        tokens = self._tokens(ticket.holder.name)
        assert tokens >= 1 - 1e-6
        self.tokens[ticket.holder.name] = (tokens - 1, self.now)

    def _tokens(self, name: str) -> float:
        settings = SETTINGS.for_tenant(name)
        tokens, at = self.tokens.get(name, (settings.burst, self.now))
        return min(settings.burst, tokens + (self.now - at) * settings.rate_per_s)

    def _check_refusal(self, event) -> None:
        """The outcome is true, as far as the outside can tell."""
        ticket = event.ticket
        if isinstance(event, Reject):
            assert ticket is self.arriving
        if event.outcome is Outcome.RATE_LIMITED:
            name = ticket.tenant if ticket.tenant in TENANTS else None
            wait_s = (1 - self._tokens(name)) / SETTINGS.for_tenant(name).rate_per_s if name else event.pushback_s
            assert event.pushback_s == pytest.approx(wait_s, abs=1e-6)
            assert event.pushback_s > 0
        if event.outcome is Outcome.DISPLACED:
            rank = RANKS[ticket.priority_class]
            assert rank > RANKS[self.arriving.priority_class]
            assert ticket.ticket_id not in self.retrying
            waiting = [each for each in self._waiting() if each is not self.arriving]
            assert max(RANKS[each.priority_class] for each in waiting) == rank
            assert max(each.ticket_id for each in waiting if RANKS[each.priority_class] == rank) == ticket.ticket_id

    def _pull(self) -> None:
        while (event := self.core.next_event()) is not None:
            self._take(event)
        self._note_given_up()
        assert self.abandoned.issuperset(self.given_up)

    def _note_given_up(self) -> None:
        """A batch may be given up without a further event: it was abandoned before, and hangs."""
        for batch_id in sorted(self.core._fleet._given_up.difference(self.given_up)):
            self.given_up.append(batch_id)
            for ticket in self.in_flight.pop(batch_id).tickets:
                self.cancelled_in_flight.discard(ticket.ticket_id)
                if ticket.ticket_id in self.live:
                    self._lost(ticket.ticket_id)

    def _take(self, event) -> None:
        if isinstance(event, Abandon):
            assert event.batch_id not in self.abandoned
            self.abandoned.add(event.batch_id)
            return
        self._note_given_up()
        if not isinstance(event, Dispatch):
            self._check_refusal(event)
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

    def _held(self) -> list[Ticket]:
        """Tickets that hold places in flight: at a backend, cancelled there, or between two tries."""
        held = [ticket for batch in self.in_flight.values() for ticket in batch.tickets]
        return held + [self.live[ticket_id] for ticket_id in self.retrying]

    def _fits(self, ticket: Ticket) -> bool:
        """Whether the caps of its tenant let the ticket run now."""
        settings = ticket.holder.settings
        held = [each for each in self._held() if each.holder.name == ticket.holder.name]
        of_model = [each for each in held if each.model == ticket.model]
        cap = settings.model_caps.get(ticket.model, Cap(None, None))
        return all(
            bound is None or used <= bound
            for used, bound in (
                (len(held) + 1, settings.max_in_flight),
                (sum(each.rows for each in held) + ticket.rows, settings.max_rows_in_flight),
                (len(of_model) + 1, cap.max_in_flight),
                (sum(each.rows for each in of_model) + ticket.rows, cap.max_rows_in_flight),
            )
        )

    def _free(self, model: str, *, ready_batches: int) -> bool:
        """Whether a ready backend has an instance idle, or a place for so many batches beyond its instances."""
        return any(
            state.ready
            and model in state.models
            and self._closed(name, model)
            and model not in self.core._lanes.yielding
            and self._suits(name, model)
            and self._flying(name, model) < state.models[model].instances + ready_batches
            for name, state in self.backends.items()
        )

    def _suits(self, backend: str, model: str) -> bool:
        """Whether whatever may run is within max_batch_size there, or nowhere."""
        offers = {
            name: state.models[model] for name, state in self.backends.items() if state.ready and model in state.models
        }
        rows = {name: max(1, offer.max_batch_size) for name, offer in offers.items()}
        return all(t.rows <= rows[backend] or t.rows > max(rows.values()) for t in self._able(model))

    def _closed(self, backend: str, model: str) -> bool:
        """Whether the breaker lets a batch of the model out."""
        breaker = self.core._fleet._backends[backend].breakers.get(model)
        return breaker is None or breaker.takes_batch

    def _able(self, model: str) -> list[Ticket]:
        """Tickets of the model that may run: retries, and the first of each tenant and class whose caps let it."""
        heads: dict[tuple[str, str], Ticket] = {}
        for ticket in sorted(self._waiting(), key=lambda each: (each.due, each.ticket_id)):
            if ticket.model == model:
                heads.setdefault((ticket.holder.name, ticket.priority_class), ticket)
        retrying = [self.live[ticket_id] for ticket_id in self.retrying if self.live[ticket_id].model == model]
        return retrying + [ticket for ticket in heads.values() if self._fits(ticket)]

    # ---- invariants

    @invariant()
    def bounds_hold(self):
        waiting = self._waiting()
        assert len(waiting) <= SETTINGS.max_queued
        assert sum(ticket.queue_bytes for ticket in waiting) <= SETTINGS.queue_bytes
        for bounds in CLASSES:
            here = [ticket for ticket in waiting if ticket.priority_class == bounds.name]
            assert len(here) <= bounds.max_queued
            assert bounds.max_queue_bytes is None or sum(t.queue_bytes for t in here) <= bounds.max_queue_bytes
        for name in {ticket.holder.name for ticket in waiting}:
            bounds, here = SETTINGS.for_tenant(name), [t for t in waiting if t.holder.name == name]
            assert len(here) <= bounds.max_queued
            assert bounds.max_queue_bytes is None or sum(t.queue_bytes for t in here) <= bounds.max_queue_bytes

    @invariant()
    def caps_hold(self):
        held = self._held()
        for name in {ticket.holder.name for ticket in held}:
            bounds, mine = SETTINGS.for_tenant(name), [ticket for ticket in held if ticket.holder.name == name]
            assert bounds.max_in_flight is None or len(mine) <= bounds.max_in_flight
            assert bounds.max_rows_in_flight is None or sum(t.rows for t in mine) <= bounds.max_rows_in_flight
            for model, cap in bounds.model_caps.items():
                here = [ticket for ticket in mine if ticket.model == model]
                assert cap.max_in_flight is None or len(here) <= cap.max_in_flight
                assert cap.max_rows_in_flight is None or sum(t.rows for t in here) <= cap.max_rows_in_flight

    @invariant()
    def unknown_tenants_told_apart_are_bounded_and_those_with_settings_never_share(self):
        present = [*self._waiting(), *self._held()]
        for ticket in present:
            assert ticket.holder.name in (ticket.tenant, OTHERS)
            assert ticket.holder.name == ticket.tenant or ticket.tenant not in TENANTS
        apart = {ticket.holder.name for ticket in present} - set(TENANTS) - {OTHERS}
        assert len(apart) <= SETTINGS.max_tenants

    @invariant()
    def no_instance_idles_while_someone_may_run(self):
        for model in MODELS:
            assert not (self._free(model, ready_batches=0) and self._able(model))

    @invariant()
    def a_place_stays_free_only_until_a_time(self):
        """Where a batch could lie ready and does not, it is held, and a wake-up is due."""
        for model in MODELS:
            if self._free(model, ready_batches=1) and self._able(model):
                assert self.core._lanes.held[model] > self.now
                assert self.core.next_wakeup() <= self.core._lanes.held[model]

    @invariant()
    def a_class_without_a_wait_that_nobody_may_overtake_is_never_held(self):
        for model in MODELS:
            if self._free(model, ready_batches=1):
                turn = self.core._lanes.by_name[model].next_turn() if model in self.core._lanes.by_name else None
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
        assert {t.name: (t.queued, t.queue_bytes, t.in_flight, t.rows_in_flight) for t in snapshot.tenants} == {
            name: (
                sum(1 for t in waiting if t.holder.name == name),
                sum(t.queue_bytes for t in waiting if t.holder.name == name),
                sum(1 for t in held if t.holder.name == name),
                sum(t.rows for t in held if t.holder.name == name),
            )
            for name in {ticket.holder.name for ticket in [*waiting, *held]}
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
        others = [*self.core._lanes.held.values(), self.core._fleet.next_wakeup()]
        earliest = min([*deadlines, *others])
        assert self.core.next_wakeup() == (None if earliest == inf else earliest)

    @invariant()
    def virtual_time_never_goes_back(self):
        for lane in self.core._lanes:
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
        assert [len(each) for each in (self.core._endings.tickets, self.core._fleet, self.core._tenants)] == [0] * 3
        for lane in self.core._lanes:
            for queue in lane.classes:
                assert queue.first() is None
                assert queue.next_retry() is None
                kept = (queue._flows, queue._resting, queue._by_key or (), queue._key_counts, queue._heads)
                assert [len(each) for each in kept] == [0] * 5


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    deadline=None,
    max_examples=250,
    stateful_step_count=60,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
