from math import inf

import pytest

from scheduler.core.admission.feasibility import Outlook
from scheduler.core.backends.breaker import FIRST_BACKOFF_S
from scheduler.core.backends.fleet import Fleet, may_try_again
from scheduler.core.backends.patience import COLD_HANG_S, SILENT, Patience, Statement
from scheduler.core.latency.evidence import SEEN
from scheduler.core.outcome import Verdict
from scheduler.core.queues.lane import Lane
from scheduler.core.snapshot import BreakerSnapshot
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Step, TicketState
from tests.unit.core.build import BACKGROUND, INTERACTIVE, backend_state, make_batch, make_ticket, tenant_settings

HANG_S = 5.0
OUTAGE_S = 30.0


def fleet_of(*states, limits=None) -> Fleet:
    fleet = Fleet(Patience(HANG_S, OUTAGE_S, limits or {}))
    for state in states or (backend_state(),):
        fleet.set_state(state, now=0.0)
    return fleet


def lane_of(model: str = "m", *, known: bool = True) -> Lane:
    """A model of 10 ms a row."""
    lane = Lane(model, (INTERACTIVE, BACKGROUND))
    for _ in range(10 if known else 0):
        lane.estimator.learn(None, 1, 0.01)
    return lane


def finish(fleet: Fleet, batch_id: int, verdict: Verdict, now: float):
    return fleet.finish(batch_id, verdict, {name: lane_of(name) for name in "mn"}, now=now)


def start(fleet: Fleet, lane: Lane, at: float, count: int = 1, merge_key: str | None = None, rank: int = 0):
    tickets = tuple(make_ticket(model=lane.model, merge_key=merge_key) for _ in range(count))
    for ticket in tickets:
        ticket.state = TicketState.IN_FLIGHT
    backend = fleet.place(fleet.able(lane.model), lane, tickets[0])
    if lane.estimator.knows(None):
        backend.estimator(lane.model, lane.estimator).add(None, 1, 0.01)
    return fleet.start(lane, backend, tickets, lane.classes[rank], now=at)


def test_a_fleet_without_backends_offers_nothing():
    fleet = Fleet(Patience(HANG_S, OUTAGE_S, {}))
    assert not fleet.offered("m")
    assert fleet.able("m") == []
    assert fleet.next_wakeup() == inf


def test_a_backend_is_added_once_and_changed_after():
    fleet = fleet_of()
    assert fleet.offered("m")
    assert not fleet.offered("n")
    fleet.set_state(backend_state(instances=2), now=0.0)
    assert fleet.outlook("m", 1.0, now=0.0) == Outlook(0.0, 0.0, 2, 2, 8)
    assert len(fleet.snapshot()) == 1


def test_a_missed_backend_offers_its_models_until_the_outage_is_too_long():
    fleet = fleet_of()
    fleet.set_state(backend_state(ready=False), now=10.0)
    assert (fleet.offered("m"), fleet.served("m"), fleet.able("m"), fleet.offered("n")) == (True, False, [], False)
    assert fleet.next_wakeup() == 10.0 + OUTAGE_S
    assert fleet.given_up(now=10.0 + OUTAGE_S - 0.1) == []
    assert fleet.given_up(now=10.0 + OUTAGE_S) == ["m"]
    assert not fleet.offered("m")
    assert fleet.next_wakeup() == inf


def test_an_unloaded_model_is_not_missed_and_one_that_a_backend_came_back_without_is():
    fleet = fleet_of(backend_state(models=("m", "n", "o")))
    fleet.set_state(backend_state(models=("m", "n")), now=1.0)
    assert not fleet.offered("o")
    fleet.set_state(backend_state(ready=False, models=()), now=2.0)
    fleet.set_state(backend_state(models=("n",)), now=3.0)
    fleet.set_state(backend_state(ready=False, models=()), now=4.0)
    fleet.set_state(backend_state(models=()), now=5.0)
    assert [fleet.offered(model) for model in "mno"] == [True, True, False]
    assert fleet.given_up(now=2.0 + OUTAGE_S) == ["m"]
    assert fleet.given_up(now=4.0 + OUTAGE_S) == ["n"]
    fleet.set_state(backend_state(models=("m",)), now=50.0)
    assert fleet.served("m")


def test_of_two_missed_backends_the_last_that_was_ready_counts():
    fleet = fleet_of(backend_state("a"), backend_state("b"))
    fleet.set_state(backend_state("b", ready=False), now=2.0)
    assert fleet.next_wakeup() == inf
    fleet.set_state(backend_state("a", ready=False), now=1.0)
    assert fleet.next_wakeup() == 2.0 + OUTAGE_S


def test_a_new_length_of_outages_holds_for_what_is_missed_already():
    fleet = fleet_of()
    fleet.set_state(backend_state(ready=False), now=1.0)
    fleet._patience.outage_s = 5.0
    fleet.reconfigure(now=2.0)
    assert fleet.next_wakeup() == 6.0
    fleet._patience.outage_s = 1.0
    fleet.reconfigure(now=2.0)
    assert not fleet.offered("m")


def test_a_batch_is_booked_from_start_to_finish():
    fleet, lane = fleet_of(), lane_of()
    batch = start(fleet, lane, 1.0, count=2)
    assert (len(fleet), fleet.riders, fleet.idle) == (1, 2, False)
    assert (batch.batch_id, batch.rows, batch.estimate_s) == (1, 2, pytest.approx(0.02))
    assert fleet.batch_of(batch.tickets[0]) is batch
    assert finish(fleet, 1, Verdict.SUCCEEDED, now=1.5) is batch
    assert fleet.idle
    assert fleet.next_wakeup() == inf
    with pytest.raises(ValueError, match="batch 1 is not in flight"):
        finish(fleet, 1, Verdict.SUCCEEDED, now=2.0)


def test_what_is_overdue_is_asked_about_and_what_lies_behind_it_and_other_models_are_not():
    fleet = fleet_of(backend_state(models=("m", "n")))
    first, second = (start(fleet, lane_of(), at) for at in (1.0, 2.0))
    other = start(fleet, lane_of("n"), 3.0)
    assert fleet.next_wakeup() == 1.0 + HANG_S
    assert fleet.look(now=1.0 + HANG_S - 0.001) == ([], [])
    assert fleet.look(now=1.0 + HANG_S) == ([first], [])
    assert (first.overdue, second.overdue, other.overdue) == (True, False, False)
    assert fleet.snapshot()[0].overdue == {"m": 1}
    assert fleet.next_wakeup() == 3.0 + HANG_S


def test_a_batch_that_started_late_is_overdue_late():
    fleet, lane = fleet_of(), lane_of()
    first, second = (start(fleet, lane, 1.0) for _ in range(2))
    finish(fleet, first.batch_id, Verdict.SUCCEEDED, now=4.0)
    assert fleet.look(now=1.0 + HANG_S) == ([], [])
    assert fleet.next_wakeup() == 4.0 + HANG_S
    assert fleet.look(now=4.0 + HANG_S) == ([second], [])


def test_the_first_answer_of_a_merge_key_may_take_longer():
    fleet, lane = fleet_of(), lane_of()
    usual = start(fleet, lane, 0.0)
    finish(fleet, usual.batch_id, Verdict.SUCCEEDED, now=0.01)
    second = start(fleet, lane, 1.0, merge_key="huge")
    finish(fleet, second.batch_id, Verdict.SUCCEEDED, now=1.4)
    third = start(fleet, lane, 2.0, merge_key="huge")
    assert [batch.patience_s for batch in (usual, second, third)] == [HANG_S, COLD_HANG_S, HANG_S]


def test_a_sign_of_a_batch_begins_its_time_anew():
    fleet, lane = fleet_of(), lane_of()
    batch = start(fleet, lane, 0.0)
    fleet.look(now=HANG_S)
    fleet.hear_of(batch.batch_id, now=6.0)
    fleet.hear_of(99, now=6.0)
    assert (batch.overdue, batch.heard_at) == (False, 6.0)
    assert fleet.look(now=2 * HANG_S) == ([], [])
    assert fleet.next_wakeup() == 6.0 + HANG_S


def stuck(fleet: Fleet, *, inferences: int = 0):
    """A batch that nobody waits for, and that was asked about once."""
    batch = start(fleet, lane_of(), 0.0)
    fleet.look(now=HANG_S)
    batch.tickets[0].state = TicketState.ENDED
    assert fleet.testify(batch.batch_id, Statement(live=True, served=True, inferences=inferences), now=HANG_S) is None
    fleet.look(now=2 * HANG_S)
    return batch


def test_a_model_of_which_nothing_ends_gets_no_more_than_probes():
    fleet = fleet_of()
    batch = stuck(fleet)
    assert fleet.able("m")
    assert fleet.testify(batch.batch_id, Statement(live=True, served=True), now=2 * HANG_S) is Verdict.ABANDONED
    assert not fleet.able("m")
    assert fleet.snapshot()[0].breakers["m"].why == "nothing has ended in 10 s"
    assert fleet.tick(now=2 * HANG_S + FIRST_BACKOFF_S) == ["m"]
    assert fleet.able("m")


def test_a_model_of_which_the_server_says_that_it_works_is_not_doubted():
    fleet = fleet_of()
    batch = stuck(fleet, inferences=4)
    fleet.testify(batch.batch_id, Statement(live=True, served=True, inferences=5), now=2 * HANG_S)
    fleet.testify(batch.batch_id, Statement(live=True, served=True, inferences=5), now=3 * HANG_S)
    assert fleet.able("m")


def test_a_model_of_which_another_batch_has_ended_is_not_doubted():
    fleet = fleet_of(backend_state(instances=2))
    batch = stuck(fleet)
    finish(fleet, start(fleet, lane_of(), 1.0).batch_id, Verdict.SUCCEEDED, now=3.0)
    assert fleet.testify(batch.batch_id, Statement(live=True, served=True), now=2 * HANG_S) is None
    assert fleet.able("m")


def test_a_batch_that_is_waited_for_makes_nobody_doubt_its_model():
    fleet = fleet_of()
    batch = stuck(fleet)
    batch.tickets[0].state = TicketState.IN_FLIGHT
    assert fleet.testify(batch.batch_id, Statement(live=True, served=True), now=2 * HANG_S) is None
    assert fleet.able("m")


def test_what_a_silent_server_or_one_that_was_asked_about_a_batch_that_has_ended_says_is_nothing():
    fleet = fleet_of()
    batch = stuck(fleet)
    assert fleet.testify(batch.batch_id, Statement(live=False), now=2 * HANG_S) is None
    assert fleet.testify(99, Statement(live=True), now=2 * HANG_S) is None
    assert fleet.able("m")


def test_a_batch_whose_model_is_gone_is_told():
    fleet = fleet_of()
    batch = start(fleet, lane_of(), 0.0)
    assert fleet.testify(batch.batch_id, Statement(live=True, served=False), now=1.0) is None
    fleet.look(now=HANG_S)
    assert fleet.testify(batch.batch_id, Statement(live=True, served=False), now=HANG_S) is Verdict.LOST


def test_a_batch_is_given_up_after_its_models_own_limit_and_keeps_its_place():
    fleet = fleet_of(limits={"m": 2.0})
    batch = start(fleet, lane_of(), 1.0)
    assert fleet.next_wakeup() == 3.0
    assert fleet.look(now=3.0) == ([], [(batch, "models.m.hang_s")])
    assert fleet.batch(batch.batch_id) is batch
    assert not fleet.able("m")
    assert fleet.snapshot()[0].breakers["m"].why == "models.m.hang_s"


def test_a_silent_backends_overdue_batches_are_given_up_after_an_outage():
    fleet = fleet_of()
    batch, ready = (start(fleet, lane_of(), 0.0) for _ in range(2))
    fleet.set_state(backend_state(ready=False), now=1.0)
    assert fleet.next_wakeup() == HANG_S
    assert fleet.look(now=HANG_S) == ([], [])
    while (at := fleet.next_wakeup()) < 1.0 + OUTAGE_S:
        assert fleet.look(now=at) == ([], [])
    assert fleet.look(now=1.0 + OUTAGE_S) == ([], [(batch, SILENT)])
    fleet.take_out(batch, now=1.0 + OUTAGE_S)
    assert (len(fleet), ready.started_at) == (1, 1.0 + OUTAGE_S)
    fleet.take_out(ready, now=1.0 + OUTAGE_S)
    assert fleet.next_wakeup() == 1.0 + OUTAGE_S
    assert finish(fleet, ready.batch_id, Verdict.LOST, now=40.0) is None
    assert finish(fleet, batch.batch_id, Verdict.SUCCEEDED, now=40.0) is None
    assert fleet.idle


def test_one_batch_is_the_probe_and_its_answer_closes_the_breaker():
    fleet, lane = fleet_of(), lane_of()
    batch = start(fleet, lane, 0.0)
    finish(fleet, batch.batch_id, Verdict.LOST, now=1.0)
    assert not fleet.able("m")
    assert fleet.tick(now=1.0) == []
    assert fleet.tick(now=1.0 + FIRST_BACKOFF_S) == ["m"]
    probe = start(fleet, lane, 2.0)
    assert fleet.snapshot()[0].breakers == {"m": BreakerSnapshot("half_open", "lost", 1.2, 1.2)}
    finish(fleet, probe.batch_id, Verdict.FAILED, now=2.5)
    assert fleet.snapshot()[0].breakers == {}
    assert fleet.able("m")


def test_a_backend_that_is_ready_again_is_probed_at_once():
    fleet, lane = fleet_of(), lane_of()
    finish(fleet, start(fleet, lane, 0.0).batch_id, Verdict.LOST, now=1.0)
    fleet.set_state(backend_state(ready=False), now=1.01)
    fleet.set_state(backend_state(), now=1.02)
    assert fleet.next_wakeup() == 1.02
    assert fleet.tick(now=1.02) == ["m"]


def test_a_backend_that_stays_ready_is_probed_no_sooner_for_a_change():
    fleet, lane = fleet_of(), lane_of()
    finish(fleet, start(fleet, lane, 0.0).batch_id, Verdict.LOST, now=1.0)
    fleet.set_state(backend_state(instances=2), now=1.02)
    assert fleet.next_wakeup() == 1.0 + FIRST_BACKOFF_S
    assert fleet.tick(now=1.02) == []


def test_instances_that_are_added_run_what_lay_ready_from_that_moment_on():
    fleet, lane = fleet_of(), lane_of()
    running, ready = (start(fleet, lane, 1.0) for _ in range(2))
    fleet.set_state(backend_state(instances=2), now=3.0)
    assert (running.started_at, ready.started_at) == (1.0, 3.0)


def test_breakers_of_two_backends_let_their_probes_out_at_the_same_time():
    fleet = fleet_of(backend_state("a"), backend_state("b", models=("n",)))
    for model in "mn":
        finish(fleet, start(fleet, lane_of(model), 0.0).batch_id, Verdict.LOST, now=1.0)
    assert fleet.tick(now=1.0 + FIRST_BACKOFF_S) == ["m", "n"]


@pytest.mark.parametrize(
    ("verdict", "merged", "again"),
    [
        (Verdict.SUCCEEDED, True, False),
        (Verdict.FAILED, True, True),
        (Verdict.FAILED, False, False),
        (Verdict.GARBLED, True, True),
        (Verdict.GARBLED, False, False),
        (Verdict.ABANDONED, True, False),
        (Verdict.LOST, False, True),
        (Verdict.UNREACHED, False, True),
        (Verdict.UNAVAILABLE, True, True),
    ],
)
def test_who_is_tried_again(verdict, merged, again):
    batch = make_batch(tickets=(make_ticket(),) * (2 if merged else 1))
    assert may_try_again(batch.tickets[0], batch, verdict) is again


def test_a_lost_ticket_is_sent_twice_and_not_three_times():
    batch = make_batch(tickets=(make_ticket(),))
    assert may_try_again(batch.tickets[0], batch, Verdict.LOST)
    assert not may_try_again(batch.tickets[0], batch, Verdict.LOST)
    assert not may_try_again(batch.tickets[0], batch, Verdict.UNAVAILABLE)


def test_what_reached_no_backend_does_not_count():
    batch = make_batch(tickets=(make_ticket(),))
    for verdict, again in ((Verdict.UNREACHED, True), (Verdict.LOST, True), (Verdict.UNREACHED, True)):
        assert may_try_again(batch.tickets[0], batch, verdict) is again
    assert not may_try_again(batch.tickets[0], batch, Verdict.LOST)


def test_what_is_out_is_held_and_found_by_its_number():
    fleet, lane = fleet_of(), lane_of()
    batch = start(fleet, lane, 0.0, count=2)
    assert list(fleet.held()) == list(batch.tickets)
    assert (fleet.batch(batch.batch_id), fleet.batch(99)) == (batch, None)


def test_the_outlook_is_that_of_all_ready_backends_together():
    fleet, lane = fleet_of(backend_state("a"), backend_state("b", instances=2, max_batch_size=32)), lane_of()
    fleet.set_state(backend_state("c", ready=False, instances=100), now=0.0)
    assert fleet.outlook("m", 0.5, now=1.0) == Outlook(1.0, 1.0, 3, 3, 32)
    start(fleet, lane, 1.0)
    assert fleet.outlook("m", 0.5, now=1.0) == Outlook(1.0, 1.0, 2, 3, 32)
    for _ in range(4):  # a running and a ready one on a, two running and a ready one on b
        start(fleet, lane, 1.0)
    # An instance is free when the first of the running ones ends, and not before now.
    assert fleet.outlook("m", 0.5, now=1.0) == Outlook(pytest.approx(1.01), pytest.approx(1.005), 0, 3, 32)
    assert fleet.outlook("m", 0.5, now=2.0) == Outlook(2.0, 2.0, 0, 3, 32)
    assert fleet.outlook("m", 1.0, now=1.0) == Outlook(pytest.approx(1.01), pytest.approx(1.01), 0, 3, 32)


def test_a_model_without_a_batch_dimension_has_batches_of_one():
    assert fleet_of(backend_state(max_batch_size=0)).outlook("m", 1.0, now=0.0) == Outlook(0.0, 0.0, 1, 1, 1)


def test_what_was_answered_is_evidence_of_the_lane():
    fleet, lane = fleet_of(), lane_of()
    for number in range(SEEN):
        batch = start(fleet, lane, float(number))
        fleet.finish(batch.batch_id, Verdict.SUCCEEDED, {"m": lane}, now=number + 0.25)
        assert lane.evidence.known(SEEN, now=number + 0.25) == (number == SEEN - 1)


@pytest.mark.parametrize(("took_s", "learned"), [(0.009, False), (0.03, True)])
def test_what_was_abandoned_is_learned_from_where_it_took_longer_than_expected(took_s, learned):
    fleet, lane = fleet_of(), lane_of()
    batch = start(fleet, lane, 1.0)
    fleet.finish(batch.batch_id, Verdict.ABANDONED, {"m": lane}, now=1.0 + took_s)
    assert lane.evidence.known(1, now=2.0) == learned
    assert (lane.estimator.line(None).predict(1) > 0.0101) == learned


def test_what_was_abandoned_before_it_ran_says_nothing():
    fleet, lane = fleet_of(), lane_of()
    start(fleet, lane, 1.0)
    ready = start(fleet, lane, 1.0)
    fleet.finish(ready.batch_id, Verdict.ABANDONED, {"m": lane}, now=9.0)
    assert not lane.evidence.known(1, now=9.0)


def test_a_batch_whose_cost_is_known_is_expected_to_take_what_its_cost_takes():
    fleet, lane = fleet_of(), lane_of()
    for cost in (10, 20):
        lane.evidence.learn("k", 1, cost, 0.001 * cost, now=0.0)
    tickets = tuple(make_ticket(merge_key="k", cost=cost) for cost in (10, 20))
    batch = fleet.start(lane, fleet.able("m")[0], tickets, lane.classes[0], now=1.0)
    assert batch.estimate_s == pytest.approx(0.030)


def test_among_several_backends_the_one_with_least_work_gets_the_batch():
    fleet, lane = fleet_of(backend_state("a"), backend_state("b")), lane_of()
    assert [start(fleet, lane, 0.0).backend for _ in range(4)] == ["a", "b", "a", "b"]
    assert fleet.able("m") == []


def test_a_breaker_that_lets_a_probe_out_needs_no_wakeup():
    fleet, lane = fleet_of(), lane_of()
    finish(fleet, start(fleet, lane, 0.0).batch_id, Verdict.LOST, now=1.0)
    assert fleet.next_wakeup() == 1.0 + FIRST_BACKOFF_S
    assert fleet.tick(now=1.0 + FIRST_BACKOFF_S) == ["m"]
    assert fleet.next_wakeup() == inf


def test_a_lost_step_of_a_sequence_is_not_sent_again():
    ticket = make_ticket(step=Step("7", start=True, end=False, idle_s=1.0, pipelined=False))
    batch = make_batch(tickets=(ticket,))
    assert not may_try_again(ticket, batch, Verdict.LOST)
    assert not may_try_again(ticket, batch, Verdict.UNAVAILABLE)
    assert not ticket.resent


def test_a_batch_carries_the_key_of_its_tickets_and_the_rank_and_wait_of_the_class_that_opened_it():
    fleet, lane = fleet_of(), lane_of()
    plain = start(fleet, lane, 0.0)
    assert (plain.latency_key, plain.rank, plain.wait_s, plain.lesser) == (None, 0, 0.05, False)
    keyed = start(fleet, lane, 0.0, merge_key="k", rank=1)
    assert (keyed.latency_key, keyed.rank, keyed.wait_s, keyed.lesser) == ("k", 1, None, True)


def lane_of_keys() -> Lane:
    """A model of 10 ms a row on the whole, and of 250 ms a row of key "k"."""
    lane = lane_of()
    lane.estimator.learn("k", 1, 0.25)
    return lane


def test_a_backends_first_batch_is_expected_to_take_what_those_of_its_key_took_elsewhere():
    fleet, lane = fleet_of(), lane_of_keys()
    batch = fleet.start(lane, fleet.able("m")[0], (make_ticket(merge_key="k"),), lane.classes[0], now=0.0)
    assert batch.estimate_s == 0.25


def test_a_new_backend_is_thought_as_fast_as_the_others_when_a_batch_is_placed():
    fleet, lane = fleet_of(backend_state("a"), backend_state("b")), lane_of_keys()
    first, new = fleet.able("m")
    first.estimator("m", lane.estimator).learn("k", 1, 0.125)
    assert fleet.place([first, new], lane, make_ticket(merge_key="k")) is first


def test_an_answer_teaches_all_backends_what_its_key_takes():
    fleet, lane = fleet_of(), lane_of()
    batch = start(fleet, lane, 1.0, merge_key="k")
    fleet.finish(batch.batch_id, Verdict.SUCCEEDED, {"m": lane}, now=1.25)
    assert lane.estimator.line("k").predict(1) == 0.25
    assert lane.estimator.line(None).predict(1) < 0.05


def test_an_important_batch_beside_a_lesser_one_moves_the_limit_when_it_ends():
    fleet = fleet_of(backend_state(models=("m", "n")))
    start(fleet, lane_of("n"), 1.0, rank=1)
    important = start(fleet, lane_of(), 1.0)
    finish(fleet, important.batch_id, Verdict.SUCCEEDED, now=1.01)
    assert fleet.snapshot()[0].concurrency.moved_at == 1.01


def test_idle_instances_of_all_ready_backends_are_spare_and_what_lies_ready_is_not():
    fleet, lane = (
        fleet_of(backend_state("a", instances=2), backend_state("b"), backend_state("c", ready=False)),
        lane_of(),
    )
    assert fleet.spare("m") == 3
    for number in range(4):
        fleet.start(lane, fleet._backends["ab"[number % 2]], (make_ticket(),), lane.classes[0], now=1.0)
    assert fleet.spare("m") == -1
    assert fleet.spare("unknown") == 0


def test_a_batch_joins_an_execution_that_lies_ready_and_is_learned_of_with_it():
    fleet, lane = fleet_of(), lane_of(known=False)
    backend = fleet.able("m")[0]
    alone, first, second = (make_ticket(join_key="j", rows=rows) for rows in (1, 1, 3))
    assert fleet.joinable("m") == []
    for ticket in (alone, first):
        fleet.start(lane, backend, (ticket,), lane.classes[0], now=0.0)
    assert fleet.able("m") == []
    assert fleet.joinable("m") == [backend]
    into = backend.ready(second)
    batch = fleet.start(lane, backend, (second,), lane.classes[0], now=0.5, into=into)
    assert batch.latency_key == "j"
    lanes = {"m": lane}
    fleet.finish(1, Verdict.SUCCEEDED, lanes, now=1.0)
    fleet.finish(batch.batch_id, Verdict.SUCCEEDED, lanes, now=3.0)
    # Two samples: one row in 1 s, four in 2; the other part of the second tells nothing more.
    fleet.finish(2, Verdict.SUCCEEDED, lanes, now=3.0)
    line = lane.estimator.line("j")
    assert (line.samples, line.predict(1), line.predict(4)) == (2, pytest.approx(1.0), pytest.approx(2.0))


def test_whether_a_backend_waits_for_executions_to_fill():
    fleet = fleet_of(backend_state("a"), backend_state("b", models=("n",), queue_delay_s=0.1, delayed_below=4))
    assert (fleet.delays("m"), fleet.delays("n"), fleet.delays("unknown")) == (False, True, False)
    assert fleet.joinable("unknown") == []


class TestRemoval:
    def test_a_backend_that_holds_nothing_and_whose_models_others_serve_is_forgotten_at_once(self):
        fleet = fleet_of(backend_state("a"), backend_state("b"))
        fleet.remove("a", now=1.0)
        assert [each.name for each in fleet.snapshot()] == ["b"]
        assert fleet.outlook("m", 1.0, now=1.0) == Outlook(1.0, 1.0, 1, 1, 8)

    def test_it_is_among_the_names_until_what_it_holds_has_ended(self):
        fleet, lane = fleet_of(backend_state("a"), backend_state("b")), lane_of()
        batch = start(fleet, lane, 1.0)
        fleet.remove(batch.backend, now=1.0)
        assert set(fleet.names()) == {"a", "b"}
        finish(fleet, batch.batch_id, Verdict.SUCCEEDED, 1.5)
        assert set(fleet.names()) == {"a", "b"} - {batch.backend}

    def test_one_that_was_never_there_is_no_error(self):
        fleet = fleet_of()
        fleet.remove("other", now=1.0)
        assert len(fleet.snapshot()) == 1

    def test_what_is_in_flight_ends_there_and_nothing_new_goes_there(self):
        fleet, lane = fleet_of(backend_state("a"), backend_state("b")), lane_of()
        batch = start(fleet, lane, 1.0)
        fleet.remove(batch.backend, now=1.0)
        assert batch.backend not in [each.name for each in fleet.able("m")]
        (leaving,) = [each for each in fleet.snapshot() if each.leaving]
        assert (leaving.name, leaving.ready, leaving.in_flight) == (batch.backend, False, {"m": 1})
        assert finish(fleet, batch.batch_id, Verdict.SUCCEEDED, 1.5) is batch
        assert [each.leaving for each in fleet.snapshot()] == [False]

    def test_a_batch_there_is_waited_for_while_it_says_that_it_lives_and_for_an_outage_after(self):
        fleet, lane = fleet_of(backend_state("a"), backend_state("b")), lane_of()
        batch = start(fleet, lane, 1.0)
        fleet.remove(batch.backend, now=1.0)
        assert fleet.look(now=50.0) == ([batch], [])
        fleet.testify(batch.batch_id, Statement(live=False), now=50.0)
        fleet.testify(batch.batch_id, Statement(live=True, served=True), now=51.0)
        assert fleet.look(now=100.0) == ([batch], [])
        for at in (100.0, 110.0):
            fleet.testify(batch.batch_id, Statement(live=False), now=at)
        assert fleet.look(now=105.0) == ([batch], [])
        assert fleet.look(now=100.0 + OUTAGE_S) == ([], [(batch, SILENT)])
        fleet.take_out(batch, now=100.0 + OUTAGE_S)
        assert len(fleet.snapshot()) == 1
        assert finish(fleet, batch.batch_id, Verdict.LOST, 1001.0) is None

    def test_models_that_nobody_else_serves_are_waited_for(self):
        fleet = fleet_of()
        fleet.remove("gpu0", now=1.0)
        assert fleet.offered("m")
        assert not fleet.served("m")
        assert fleet.given_up(now=1.0 + OUTAGE_S) == ["m"]
        assert not fleet.offered("m")
        assert fleet.snapshot() == ()

    def test_another_in_its_place_lets_it_be_forgotten(self):
        fleet = fleet_of()
        fleet.remove("gpu0", now=1.0)
        fleet.set_state(backend_state("gpu1"), now=2.0)
        assert [each.name for each in fleet.snapshot()] == ["gpu1"]

    def test_one_that_is_there_again_stays(self):
        fleet, lane = fleet_of(), lane_of()
        batch = start(fleet, lane, 1.0)
        fleet.remove("gpu0", now=1.0)
        fleet.set_state(backend_state(), now=1.2)
        finish(fleet, batch.batch_id, Verdict.SUCCEEDED, 1.5)
        (backend,) = fleet.snapshot()
        assert (backend.name, backend.ready, backend.leaving) == ("gpu0", True, False)


def test_what_is_in_flight_can_be_bounded_by_hand_for_backends_that_are_here_and_that_come():
    fleet = fleet_of()
    fleet.bound({"m": 1})
    fleet.set_state(backend_state("late"), now=1.0)
    for backend in fleet.able("m"):
        fleet.start(lane_of(), backend, (make_ticket(),), lane_of().classes[0], now=1.0)
    assert fleet.able("m") == []


def test_whose_answers_come_in_parts():
    fleet = fleet_of(backend_state("a"), backend_state("b", models=("n",), streams=True))
    assert (fleet.streams("m"), fleet.streams("n"), fleet.streams("unknown")) == (False, True, False)


def test_how_many_run_at_a_time_is_learned_of_a_model_without_a_batch_dimension():
    fleet, lane = fleet_of(backend_state(max_batch_size=0)), lane_of()
    (backend,) = fleet.able("m")
    lane.push(make_ticket(), 0, Tenant("a", tenant_settings()))
    now = 0.0
    while backend._instances("m") == 1:
        batch = start(fleet, lane, now)
        now += 0.25
        fleet.finish(batch.batch_id, Verdict.SUCCEEDED, {"m": lane}, now=now)
        assert now < 30.0
