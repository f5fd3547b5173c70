"""Stateful sequences: one backend, in order, one at a time, and nothing computed behind a gap."""

from math import inf
from typing import Any

import pytest

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.events import Abandon, Dispatch, Event, Evict, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.sequences.sequence import Sequences
from scheduler.core.settings import TenantSettings
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Step, Ticket
from tests.unit.core.build import core_settings, tenant_settings

IDLE_S = 1.0


def step(number: int, sequence: str = "7", *, start: bool = False, end: bool = False, **about: Any) -> Ticket:
    what = Step(sequence, start, end, about.pop("idle_s", IDLE_S), about.pop("pipelined", False))
    tenant, priority_class = about.pop("tenant", "a"), about.pop("priority_class", "interactive")
    return Ticket(number, priority_class, tenant, "m", step=what, **about)


class Bench:
    """A scheduler in front of so many backends with two instances each, and what it has said."""

    def __init__(self, backends: int = 1, **settings: Any) -> None:
        self.core = Scheduler(core_settings(**settings))
        self.out: dict[int, Dispatch] = {}
        for number in range(backends):
            self.backend(number, ready=True)

    def backend(self, number: int, *, ready: bool, now: float = 0.0) -> list[Event]:
        models = {"m": ModelCapacity(2, 8)} if ready else {}
        self.core.set_backend(BackendState(f"b{number}", ready, models), now=now)
        return self.events()

    def events(self) -> list[Event]:
        events: list[Event] = []
        while (event := self.core.next_event()) is not None:
            events.append(event)
            if isinstance(event, Dispatch):
                self.out[event.tickets[0].ticket_id] = event
        return events

    def submit(self, *tickets: Ticket, now: float = 0.0) -> list[Event]:
        for ticket in tickets:
            self.core.submit(ticket, now=now)
        return self.events()

    def complete(self, number: int, verdict: Verdict = Verdict.SUCCEEDED, *, now: float = 0.0) -> list[Event]:
        self.core.complete(self.out.pop(number).batch_id, verdict, now=now)
        return self.events()


def told(events: list[Event]) -> list[Any]:
    """Dispatches as (number, backend), ends as (number, reason)."""
    said: list[Any] = []
    for event in events:
        if isinstance(event, Dispatch):
            said.append((event.tickets[0].ticket_id, event.backend))
        elif isinstance(event, Abandon):
            said.append(event)
        else:
            said.append((event.ticket.ticket_id, event.outcome.name))
    return said


def test_steps_go_in_order_and_one_at_a_time() -> None:
    bench = Bench()
    assert told(bench.submit(step(1, start=True), step(2), step(3, end=True))) == [(1, "b0")]
    assert told(bench.complete(1)) == [(2, "b0")]
    assert told(bench.complete(2)) == [(3, "b0")]
    assert told(bench.complete(3)) == []
    assert bench.core.idle
    assert len(bench.core._steps.sequences) == 0


def test_waiting_steps_are_counted() -> None:
    bench = Bench()
    bench.submit(*(step(n, start=n == 1, queue_bytes=10) for n in (1, 2, 3)))
    snapshot = bench.core.snapshot()
    assert (snapshot.queued, snapshot.queue_bytes, snapshot.in_flight) == (2, 20, 1)
    assert (snapshot.tenants[0].queued, snapshot.tenants[0].queue_bytes) == (2, 20)
    assert [(model.name, model.queued) for model in snapshot.models] == [("m", {"interactive": 2, "background": 0})]


def test_different_sequences_run_beside_each_other() -> None:
    bench = Bench()
    assert told(bench.submit(step(1, "7", start=True), step(2, "8", start=True))) == [(1, "b0"), (2, "b0")]


def test_a_sequence_stays_at_its_backend_and_new_ones_spread() -> None:
    bench = Bench(backends=2)
    assert told(bench.submit(step(1, "7", start=True))) == [(1, "b0")]
    bench.complete(1)
    assert told(bench.submit(step(2, "8", start=True))) == [(2, "b1")]
    bench.complete(2)
    assert told(bench.submit(step(3, "8"), step(4, "7"))) == [(3, "b1"), (4, "b0")]


def test_a_full_backend_does_not_keep_the_sequences_of_another_waiting() -> None:
    bench = Bench(backends=2)
    for number in range(1, 11):
        bench.submit(step(number, str(number), start=True))
        bench.complete(number)
    # Odd ones are at b0, which has three places.
    said = told(bench.submit(*(step(10 + n, str(n)) for n in (1, 3, 5, 7, 2, 4))))
    assert sorted(said) == [(11, "b0"), (12, "b1"), (13, "b0"), (14, "b1"), (15, "b0")]
    assert told(bench.complete(11)) == [(17, "b0")]


def test_a_start_behind_an_end_is_given_its_backend_anew() -> None:
    bench = Bench(backends=2)
    said = told(bench.submit(*(step(n, str(n), start=True, end=n != 3) for n in (1, 2, 3))))
    assert sorted(said) == [(1, "b0"), (2, "b1"), (3, "b0")]
    assert told(bench.submit(step(4, "1", start=True))) == []
    assert told(bench.complete(2)) == []
    # The third is still at b0.
    assert told(bench.complete(1)) == [(4, "b1")]


def test_one_id_of_two_tenants_is_two_sequences() -> None:
    bench = Bench()
    first, second = step(1, start=True, tenant="a"), step(2, start=True, tenant="b")
    assert told(bench.submit(first, second)) == [(1, "b0"), (2, "b0")]
    assert first.sequence_number != second.sequence_number


def test_a_sequence_keeps_its_number_until_its_end() -> None:
    bench = Bench()
    tickets = [step(1, start=True), step(2), step(3, start=True), step(4, end=True), step(5, start=True)]
    for ticket in tickets[:4]:
        bench.submit(ticket)
        bench.complete(ticket.ticket_id)
    bench.submit(tickets[4])
    assert [ticket.sequence_number for ticket in tickets] == [1, 1, 1, 1, 2]


def test_a_step_without_a_start_is_refused_for_good() -> None:
    (event,) = Bench().submit(step(1))
    assert isinstance(event, Reject)
    assert (event.outcome, event.pushback_s) == (Outcome.SEQUENCE_LOST, None)
    assert event.detail == "there is no such sequence, or a step of it is missing; begin anew with sequence_start"


def test_a_step_after_the_end_is_refused() -> None:
    bench = Bench()
    assert told(bench.submit(step(1, start=True, end=True), step(2))) == [(2, "SEQUENCE_LOST"), (1, "b0")]


def test_a_cancelled_step_in_the_middle_loses_those_behind_it_alone() -> None:
    bench = Bench()
    bench.submit(*(step(n, start=n == 1) for n in (1, 2, 3, 4)))
    bench.core.cancel(3, now=0.0)
    assert told(bench.events()) == [(4, "SEQUENCE_LOST")]
    assert told(bench.submit(step(5))) == [(5, "SEQUENCE_LOST")]
    assert told(bench.complete(1)) == [(2, "b0")]
    assert told(bench.complete(2)) == []
    assert bench.core.idle


def test_a_gap_does_not_reach_beyond_the_next_start() -> None:
    bench = Bench()
    bench.submit(step(1, start=True), step(2), step(3), step(4, start=True), step(5))
    bench.core.cancel(2, now=0.0)
    assert told(bench.events()) == [(3, "SEQUENCE_LOST")]
    assert told(bench.complete(1)) == [(4, "b0")]
    assert told(bench.complete(4)) == [(5, "b0")]


def test_a_step_cancelled_in_flight_loses_the_others_and_a_new_start_waits_for_its_end() -> None:
    bench = Bench()
    bench.submit(step(1, start=True), step(2))
    bench.core.cancel(1, now=0.0)
    assert told(bench.events()) == [(2, "SEQUENCE_LOST"), Abandon(1)]
    assert told(bench.submit(step(3, start=True))) == []
    assert told(bench.complete(1, Verdict.ABANDONED)) == [(3, "b0")]


def test_an_expired_start_loses_its_followers() -> None:
    bench = Bench(default=tenant_settings(max_in_flight=1))
    bench.submit(step(1, "8", start=True))
    bench.submit(step(2, start=True, deadline=1.0), step(3))
    bench.core.tick(now=1.0)
    assert sorted(told(bench.events())) == [(2, "DEADLINE_EXPIRED"), (3, "SEQUENCE_LOST")]


def test_a_lost_step_is_not_sent_again() -> None:
    bench = Bench(backends=2)
    bench.submit(step(1, start=True), step(2))
    assert told(bench.complete(1, Verdict.LOST)) == [(2, "SEQUENCE_LOST"), (1, "BACKEND_LOST")]
    assert bench.core.idle


@pytest.mark.parametrize("verdict", [Verdict.UNAVAILABLE, Verdict.GARBLED])
def test_a_step_without_the_models_answer_loses_the_others(verdict: Verdict) -> None:
    bench = Bench()
    bench.submit(step(1, start=True), step(2))
    assert told(bench.complete(1, verdict)) == [(2, "SEQUENCE_LOST")]
    assert bench.core.idle


def test_an_error_of_the_model_leaves_no_gap() -> None:
    bench = Bench()
    bench.submit(step(1, start=True), step(2))
    assert told(bench.complete(1, Verdict.FAILED)) == [(2, "b0")]


def test_a_lost_backend_loses_its_sequences_until_a_new_start() -> None:
    bench = Bench(backends=2)
    bench.submit(step(1, "7", start=True), step(2, "8", start=True))
    bench.submit(step(3, "7"), step(4, "8"))
    assert told(bench.backend(0, ready=False)) == [(3, "SEQUENCE_LOST")]
    assert told(bench.complete(1, Verdict.LOST)) == [(1, "BACKEND_LOST")]
    assert told(bench.submit(step(5, "7"))) == [(5, "SEQUENCE_LOST")]
    assert told(bench.submit(step(6, "7", start=True))) == [(6, "b1")]
    assert told(bench.complete(2)) == [(4, "b1")]


def test_a_start_that_waits_for_a_lost_backend_begins_elsewhere() -> None:
    bench = Bench(backends=2)
    bench.submit(step(1, start=True), step(2), step(3, start=True))
    assert told(bench.backend(0, ready=False)) == [(2, "SEQUENCE_LOST")]
    assert told(bench.complete(1, Verdict.LOST)) == [(1, "BACKEND_LOST"), (3, "b1")]


def test_with_the_last_backend_everything_that_waits_ends() -> None:
    bench = Bench()
    bench.submit(step(1, start=True), step(2), step(3, start=True), step(4))
    assert told(bench.backend(0, ready=False)) == [(2, "SEQUENCE_LOST"), (3, "SEQUENCE_LOST"), (4, "SEQUENCE_LOST")]
    bench.complete(1, Verdict.LOST)
    assert bench.core.idle


def test_a_queued_step_is_lost_with_its_backend() -> None:
    bench = Bench(backends=2, default=tenant_settings(max_in_flight=1))
    bench.submit(step(1, "7", start=True))
    bench.complete(1)
    bench.submit(step(2, "8", start=True))
    bench.submit(step(3, "7"))
    assert told(bench.backend(0, ready=False)) == [(3, "SEQUENCE_LOST")]


def test_an_idle_sequence_is_forgotten() -> None:
    bench = Bench()
    bench.submit(step(1, start=True))
    bench.complete(1, now=5.0)
    assert told(bench.submit(step(2), now=5.9)) == [(2, "b0")]
    bench.complete(2, now=8.0)
    assert told(bench.submit(step(3), now=9.0)) == [(3, "SEQUENCE_LOST")]
    assert len(bench.core._steps.sequences) == 0


def test_what_ended_makes_no_room_for_its_successor_of_the_same_id() -> None:
    bench = Bench(max_sequences=1)
    bench.submit(step(1, start=True, end=True))
    bench.complete(1, now=0.1)
    bench.submit(step(2, start=True), now=0.5)
    bench.complete(2, now=0.5)
    # The first would have been forgotten at 1.0, the second is at 1.5.
    assert told(bench.submit(step(3, "8", start=True), now=1.2)) == [(3, "TOO_MANY_SEQUENCES")]
    assert told(bench.submit(step(4), now=1.2)) == [(4, "b0")]


def test_sequences_that_ended_take_no_memory() -> None:
    bench = Bench()
    for number in range(1, 101):
        bench.submit(step(number, str(number), start=True, end=True))
        bench.complete(number)
    assert len(bench.core._steps.sequences) == 0
    assert len(bench.core._steps.sequences._idle) <= 3


def test_one_that_is_open_beside_many_that_ended_is_still_forgotten_in_time() -> None:
    bench = Bench()
    bench.submit(step(1, "open", start=True))
    bench.complete(1)
    for number in range(2, 12):
        bench.submit(step(number, str(number), start=True, end=True))
        bench.complete(number)
    sequences = bench.core._steps.sequences
    assert len(sequences) == 1
    sequences.forget_idle(now=IDLE_S)
    assert len(sequences) == 0


def test_what_is_forgotten_is_counted_at_no_backend() -> None:
    bench = Bench()
    bench.submit(step(1, start=True))
    bench.complete(1)
    sequences = bench.core._steps.sequences
    assert sequences.by_backend("m") == {"b0": 1}
    sequences.forget_idle(now=IDLE_S)
    assert sequences.by_backend("m") == {}


def test_a_new_start_of_an_open_sequence_needs_no_room() -> None:
    bench = Bench(max_sequences=1)
    bench.submit(step(1, start=True))
    assert told(bench.submit(step(2, start=True))) == []
    assert told(bench.complete(1)) == [(2, "b0")]


def test_a_step_of_a_sequence_that_is_forgotten_takes_none_with_it() -> None:
    sequences, first, second = Sequences(), step(1, start=True, end=True), step(2, start=True)
    first.holder = second.holder = Tenant("a", tenant_settings())
    assert sequences.join(first, now=0.0)
    assert sequences.leave(first, answered=True, now=0.1) is None
    assert sequences.unanswered(first) == []
    assert sequences.join(second, now=0.2)
    assert sequences.unanswered(first) == []
    assert sequences.leave(first, answered=False, now=0.3) is None
    assert sequences.of(first).current is second


def test_one_start_too_many_comes_again_later() -> None:
    bench = Bench(max_sequences=2)
    bench.submit(step(1, "1", start=True), step(2, "2", start=True, tenant="b"))
    (event,) = bench.submit(step(3, "3", start=True, tenant="c"))
    assert isinstance(event, Reject)
    assert event.outcome is Outcome.TOO_MANY_SEQUENCES
    assert event.pushback_s is not None
    bench.complete(1, now=0.5)
    bench.complete(2, now=1.2)
    assert told(bench.submit(step(4, "3", start=True, tenant="c"), now=1.4)) == [(4, "TOO_MANY_SEQUENCES")]
    assert told(bench.submit(step(5, "3", start=True, tenant="c"), now=1.5)) == [(5, "b0")]


def test_a_tenant_starts_sequences_while_it_has_fewer_than_there_is_room_left_for() -> None:
    bench = Bench(max_sequences=7)
    greedy = [step(number, str(number), start=True) for number in range(1, 8)]
    refused = [event.ticket.ticket_id for event in bench.submit(*greedy) if isinstance(event, Reject)]
    assert refused == [5, 6, 7]  # four are open, and there is room for three
    others = [step(number, str(number), start=True, tenant="b") for number in range(11, 14)]
    refused = [event.ticket.ticket_id for event in bench.submit(*others) if isinstance(event, Reject)]
    assert refused == [13]
    assert bench.core._steps.sequences._by_owner == {"a": 4, "b": 2}
    assert bench.core.idle is False


def test_a_sequence_under_way_is_not_forgotten_though_its_backend_forgets_at_once() -> None:
    bench = Bench(max_sequences=1)
    bench.submit(step(1, start=True, idle_s=0.0))
    assert told(bench.submit(step(2, "8", start=True), now=1.0)) == [(2, "TOO_MANY_SEQUENCES")]
    assert told(bench.submit(step(3, idle_s=0.0), now=2.0)) == []
    assert told(bench.complete(1, now=3.0)) == [(3, "b0")]
    bench.complete(3, now=4.0)
    assert told(bench.submit(step(4, idle_s=0.0), now=4.0)) == [(4, "SEQUENCE_LOST")]
    assert bench.core._steps.sequences._by_owner == {}


def refusing(tenant: TenantSettings) -> Bench:
    bench = Bench(default=tenant)
    bench.submit(step(1, start=True))
    return bench


def test_a_refused_step_may_come_again() -> None:
    bench = refusing(tenant_settings(rate_per_s=2.0, burst=1))
    bench.complete(1)
    assert told(bench.submit(step(2), now=0.25)) == [(2, "RATE_LIMITED")]
    assert told(bench.submit(step(3), now=0.5)) == [(3, "b0")]


@pytest.mark.parametrize(("under_way", "about"), [(True, {}), (False, {"pipelined": True}), (False, {"start": True})])
def test_a_refused_step_that_others_may_follow_is_a_gap(under_way: bool, about: dict[str, bool]) -> None:
    bench = refusing(tenant_settings(rate_per_s=1.0, burst=1))
    if not under_way:
        bench.complete(1, now=0.25)  # idle since then, and not forgotten before 1.25
    assert told(bench.submit(step(2, **about), now=0.5)) == [(2, "RATE_LIMITED")]
    assert told(bench.submit(step(3), now=1.0)) == [(3, "SEQUENCE_LOST")]


def test_a_step_that_displaces_an_earlier_one_of_its_sequence_is_refused() -> None:
    bench = Bench(max_queued=1)
    bench.submit(step(1, start=True))
    bench.submit(step(2, priority_class="background"))
    said = told(bench.submit(step(3)))
    assert said == [(2, "DISPLACED"), (3, "SEQUENCE_LOST")]


def test_caps_hold_for_steps() -> None:
    bench = Bench(default=tenant_settings(max_in_flight=1))
    assert told(bench.submit(step(1, "7", start=True), step(2, "8", start=True))) == [(1, "b0")]
    assert told(bench.complete(1)) == [(2, "b0")]


def test_a_step_is_never_merged() -> None:
    with pytest.raises(ValueError, match="not merged"):
        Bench().submit(step(1, start=True, merge_key="k"))


def test_requests_without_a_sequence_share_the_models_places() -> None:
    bench = Bench()
    bench.submit(*(step(n, str(n), start=True) for n in (1, 2, 3, 4)))
    assert told(bench.submit(Ticket(5, "interactive", "a", "m"))) == []
    said = told(bench.complete(1)) + told(bench.complete(2))
    assert sorted(said) == [(4, "b0"), (5, "b0")]


def test_evicts_are_told_with_no_pushback() -> None:
    bench = Bench()
    bench.submit(step(1, start=True), step(2))
    (event,) = bench.backend(0, ready=False)
    assert isinstance(event, Evict)
    assert event.pushback_s is None


def test_the_next_to_be_forgotten_is_told_while_there_is_one() -> None:
    bench = Bench()
    assert bench.core._steps.sequences.next_idle() == inf
    bench.submit(step(1, start=True))
    assert bench.core._steps.sequences.next_idle() == IDLE_S
