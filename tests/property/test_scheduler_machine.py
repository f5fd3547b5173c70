"""Any sequence of inputs, against an account of the same tickets kept outside the scheduler."""

from collections import Counter
from math import inf

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.outcome import Verdict
from scheduler.core.tenants.caps import OTHERS
from scheduler.core.ticket import Ticket, TicketState
from tests.property.account import CLASSES, MODELS, POLICIES, SETTINGS, TENANTS, Account

CAPACITIES = st.builds(ModelCapacity, instances=st.integers(1, 3), max_batch_size=st.sampled_from([8, 4, 1, 0]))
OFFERS = st.dictionaries(st.sampled_from(MODELS), CAPACITIES)


class SchedulerMachine(Account, RuleBasedStateMachine):
    """Feeds a scheduler; `waiting`, `in_flight` and `ended` are the account of the outside."""

    # ---- rules

    @rule(
        priority_class=st.sampled_from([each.name for each in CLASSES]),
        tenant=st.sampled_from(
            ["tight", "heavy", "odd", "narrow", "metered", "of_rows", "of_seconds", "x", "y", "z", OTHERS]
        ),
        model=st.sampled_from(("m", "m", "m", "m", "n", "n", "unknown")),
        rows=st.sampled_from([1, 1, 1, 2, 3, 9]),
        queue_bytes=st.sampled_from([0, 1, 40]),
        merge_key=st.sampled_from(["k", "k", "k", "l", None]),
        limits=st.tuples(
            st.sampled_from([None, None, None, None, 0.5, 3.0, 0.0]), st.sampled_from([None, None, None, *POLICIES])
        ),
        count=st.integers(1, 6),
    )
    def submit(self, priority_class, tenant, model, rows, queue_bytes, merge_key, limits, count):
        patience, policy = limits
        deadline = None if patience is None else self.now + patience
        for _ in range(count):
            self.last_id += 1
            ticket = Ticket(self.last_id, priority_class, tenant, model, rows, queue_bytes, merge_key, deadline)
            ticket.policy = policy
            self.arrived[ticket.ticket_id] = self.now
            full = self._full(ticket)
            self.live[ticket.ticket_id] = ticket
            self.arriving = ticket
            self.core.submit(ticket, now=self.now)
            assert not (full and ticket.state is TicketState.QUEUED)
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

    @precondition(lambda self: "b" in self.backends)
    @rule()
    def let_one_backend_go(self):
        self.backends["b"] = BackendState("b", False, {})
        self.core.remove_backend("b", now=self.now)
        self._pull()
        leaving = [each for each in self.core.snapshot().backends if each.name == "b"]
        flying = any(batch.backend == "b" for batch in self.in_flight.values())
        assert flying <= bool(leaving)
        assert all(each.leaving and not each.ready for each in leaving)

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
    def a_class_without_a_wait_that_nobody_may_overtake_is_held_only_to_grow(self):
        for model in MODELS:
            if self._free(model, ready_batches=1) and model not in self.core._lanes.held:
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
    def the_next_wakeup_is_the_earliest_deadline_end_of_holding_or_end_of_a_policys_wait(self):
        deadlines = [ticket.deadline for ticket in self.live.values() if ticket.deadline is not None]
        others = [*self.core._lanes.held.values(), self.core._fleet.next_wakeup()]
        others += [
            self.arrived[ticket.ticket_id] + ticket.policy.wait_s
            for ticket in self._waiting()
            if ticket.policy is not None and ticket.policy.wait_s is not None and not ticket.delayed
        ]
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
        assert len(self.core._admission.policies) == 0
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
