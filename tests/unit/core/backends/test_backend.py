from dataclasses import replace

import pytest

from scheduler.core.backends.backend import Backend, Batch
from scheduler.core.latency.estimate import Estimator
from scheduler.core.outcome import Verdict
from scheduler.core.ticket import TicketState
from tests.unit.core.build import backend_state, make_batch, make_ticket


def start(backend: Backend, batch_id: int, at: float, into=None, **others: object) -> Batch:
    batch = make_batch(batch_id, dispatched_at=at, **others)
    backend.start(batch, into)
    return batch


@pytest.mark.parametrize("instances", [1, 3])
def test_a_backend_holds_one_batch_more_than_it_has_instances(instances):
    backend = Backend(backend_state(instances=instances))
    for number in range(instances + 1):
        assert backend.has_place("m")
        start(backend, number, 0.0)
    assert not backend.has_place("m")
    assert backend.in_flight("m") == instances + 1


def test_only_a_ready_backend_that_offers_the_model_has_a_place():
    assert not Backend(backend_state(ready=False)).has_place("m")
    assert not Backend(backend_state()).has_place("other")


def test_models_have_places_of_their_own():
    backend = Backend(backend_state(models=("m", "n")))
    start(backend, 1, 0.0)
    start(backend, 2, 0.0)
    assert not backend.has_place("m")
    assert backend.has_place("n")
    assert backend.in_flight("n") == 0


def test_work_is_the_sum_of_estimates_over_all_models():
    backend = Backend(backend_state(models=("m", "n")))
    start(backend, 1, 0.0, estimate_s=0.25)
    last = start(backend, 2, 0.0, estimate_s=0.5, model="n")
    assert backend.work_s() == 0.75
    assert backend.busy_models() == ["m", "n"]
    backend.finish(last, now=1.0)
    assert backend.work_s() == 0.25
    assert backend.busy_models() == ["m"]


def test_a_batch_that_lay_ready_is_served_from_the_moment_an_instance_was_free():
    backend = Backend(backend_state())
    first, second = start(backend, 1, 1.0), start(backend, 2, 1.5)
    assert (first.started_at, second.started_at) == (1.0, None)
    assert backend.finish(first, now=4.0).service_s == 3.0
    assert second.started_at == 4.0
    assert backend.finish(second, now=6.0).service_s == 2.0


def test_the_oldest_batch_that_lay_ready_runs_next():
    backend = Backend(backend_state(instances=2))
    batches = [start(backend, number, 0.0) for number in range(4)]
    backend.finish(batches[1], now=1.0)
    assert [batch.started_at for batch in batches] == [0.0, 0.0, 1.0, None]


def test_a_batch_that_ends_before_it_was_thought_to_run_counts_from_its_dispatch():
    backend = Backend(backend_state())
    first, second = start(backend, 1, 0.0), start(backend, 2, 1.0)
    assert backend.finish(second, now=3.0).service_s == 2.0
    assert first.started_at == 0.0
    assert backend.finish(first, now=4.0).service_s == 4.0


def test_a_model_that_vanished_keeps_its_batches_until_they_end():
    backend = Backend(backend_state())
    first, second = start(backend, 1, 0.0), start(backend, 2, 0.0)
    backend.state = backend_state(models=())
    assert backend.busy_models() == ["m"]
    assert backend.finish(first, now=1.0).service_s == 1.0
    assert backend.finish(second, now=2.0).service_s == 1.0
    late, behind = start(backend, 3, 3.0), start(backend, 4, 3.0)
    assert (late.started_at, behind.started_at) == (3.0, None)


def test_fewer_instances_take_places_away_only_from_new_batches():
    backend = Backend(backend_state(instances=3))
    batches = [start(backend, number, 0.0) for number in range(4)]
    backend.state = backend_state(instances=1)
    for batch in batches[:2]:
        assert not backend.has_place("m")
        backend.finish(batch, now=1.0)
    assert not backend.has_place("m")
    backend.finish(batches[2], now=1.0)
    assert backend.has_place("m")


def test_an_instance_is_idle_until_as_many_batches_are_there():
    backend = Backend(backend_state(instances=2))
    start(backend, 1, 0.0)
    assert backend.has_idle_instance("m")
    start(backend, 2, 0.0)
    assert not backend.has_idle_instance("m")


def test_an_instance_is_free_when_the_first_running_batch_is_expected_to_end():
    backend = Backend(backend_state(instances=2))
    assert backend.next_free_at("m") < 0.0
    start(backend, 1, 1.0, estimate_s=0.5)
    start(backend, 2, 1.25, estimate_s=0.125)
    start(backend, 3, 1.25, estimate_s=0.0)  # lies ready: it does not run
    assert backend.next_free_at("m") == 1.375
    assert backend.next_free_at("m", 0.25) == 1.125


def test_a_further_batch_begins_behind_those_that_lie_ready():
    backend = Backend(backend_state(instances=2))
    assert backend.open_at("m", now=1.0) == 1.0
    start(backend, 1, 1.0, estimate_s=0.5)
    start(backend, 2, 1.0, estimate_s=0.125)
    assert backend.open_at("m", now=1.0) == 1.125
    start(backend, 3, 1.0, estimate_s=0.25)  # lies ready: from 1.125 to 1.375
    assert backend.open_at("m", now=1.0) == 1.375
    assert backend.open_at("m", 0.5, now=1.0) == 1.1875
    assert backend.open_at("m", now=1.25) == 1.5  # the second is late: it may end at any moment
    assert backend.open_at("m", now=9.0) == 9.0  # and so may the first


def heard(backend: Backend, batch_id: int, verdict: Verdict, model: str = "m") -> None:
    backend.heard(make_batch(batch_id, model=model), verdict, now=1.0)


def test_a_lost_batch_takes_the_models_places_away_until_an_answer():
    backend = Backend(backend_state(models=("m", "n")))
    heard(backend, 1, Verdict.LOST)
    assert not backend.has_place("m")
    assert backend.has_place("n")
    assert backend.tick(now=1.0) == []
    assert backend.tick(now=99.0) == ["m"]
    assert backend.has_place("m")
    heard(backend, 2, Verdict.SUCCEEDED)
    assert not backend.breakers


@pytest.mark.parametrize("verdict", [Verdict.UNAVAILABLE, Verdict.GARBLED])
def test_an_answer_in_between_starts_the_count_of_failures_anew(verdict):
    backend = Backend(backend_state())
    for number in range(40):
        heard(backend, number, Verdict.FAILED if number % 4 == 0 else verdict)
        assert backend.has_place("m")


def test_a_batch_that_was_abandoned_says_nothing():
    backend = Backend(backend_state())
    heard(backend, 1, Verdict.ABANDONED)
    assert not backend.breakers
    heard(backend, 1, Verdict.LOST)
    heard(backend, 2, Verdict.ABANDONED)
    assert not backend.has_place("m")


def test_an_answer_of_a_model_that_has_no_breaker_leaves_those_of_others():
    backend = Backend(backend_state(models=("m", "n")))
    heard(backend, 1, Verdict.LOST)
    heard(backend, 2, Verdict.SUCCEEDED, "n")
    assert list(backend.breakers) == ["m"]


def test_a_probe_that_was_abandoned_makes_room_for_another_and_other_batches_do_not():
    backend = Backend(backend_state())
    heard(backend, 1, Verdict.LOST)
    assert backend.tick(now=99.0) == ["m"]
    backend.breaker("m").sent(3)
    heard(backend, 2, Verdict.ABANDONED)
    assert not backend.has_place("m")
    heard(backend, 3, Verdict.ABANDONED)
    assert backend.has_place("m")


def test_a_batch_is_heard_of_when_it_begins_and_with_each_sign_of_it():
    running, ready = make_batch(started_at=1.0, dispatched_at=0.5), make_batch(dispatched_at=0.5)
    assert (running.began, running.heard_at) == (1.0, 1.0)
    assert (ready.began, ready.heard_at) == (0.5, 0.5)
    running.sign_at = 3.0
    assert (running.began, running.heard_at) == (1.0, 3.0)


def test_a_batch_is_stuck_when_it_is_overdue_and_nobody_waits_for_it():
    backend, batch = Backend(backend_state()), make_batch(1, (make_ticket(),), overdue=True)
    backend.start(batch)
    assert (backend.overdue("m"), backend.overdue("n")) == (1, 0)
    assert (batch.wanted, batch.stuck) == (False, True)
    batch.tickets[0].state = TicketState.IN_FLIGHT
    assert (batch.wanted, batch.stuck) == (True, False)


def test_a_backend_is_silent_from_when_it_is_not_ready_until_it_is():
    backend = Backend(backend_state())
    assert backend.silent_since == float("inf")
    backend.change(backend_state(ready=False), now=2.0)
    backend.change(backend_state(ready=False), now=3.0)
    assert backend.silent_since == 2.0
    backend.change(backend_state(), now=4.0)
    assert backend.silent_since == float("inf")


@pytest.mark.parametrize("verdict", Verdict)
def test_every_answer_is_a_sign_of_work(verdict):
    backend = Backend(backend_state())
    batch = start(backend, 1, 0.0)
    backend.heard(batch, verdict, now=5.0)
    silent = verdict in {Verdict.LOST, Verdict.UNREACHED, Verdict.ABANDONED}
    assert backend.answered_at == ({} if silent else {"m": 5.0})


def test_more_instances_run_what_lay_ready_from_then_on():
    backend = Backend(backend_state())
    batches = [start(backend, number, 1.0) for number in range(2)]
    backend.change(backend_state(instances=2), now=3.0)
    assert [batch.started_at for batch in batches] == [1.0, 3.0]
    backend.change(backend_state(instances=1), now=4.0)
    assert backend.finish(batches[1], now=5.0).service_s == 2.0


def test_fewer_instances_than_run_let_nothing_more_run():
    backend = Backend(backend_state(instances=2))
    batches = [start(backend, number, 1.0) for number in range(3)]
    backend.change(backend_state(instances=1), now=3.0)
    assert [batch.started_at for batch in batches] == [1.0, 1.0, None]


def test_a_ticket_fits_within_the_models_largest_batch():
    backend = Backend(backend_state(max_batch_size=8))
    assert [backend.fits(make_ticket(rows=rows)) for rows in (8, 9)] == [True, False]
    assert not backend.fits(make_ticket(model="other"))
    single = Backend(backend_state(max_batch_size=0))
    assert [single.fits(make_ticket(rows=rows)) for rows in (1, 2)] == [True, False]


def test_a_new_backend_predicts_by_the_others_until_it_has_its_own_times():
    backend, others = Backend(backend_state()), Estimator()
    others.learn(None, 1, 0.25)
    own = backend.estimator("m", others)
    assert own.line(None).predict(1) == 0.25
    own.learn(None, 1, 0.5)
    assert backend.estimator("m", others) is own
    assert own.line(None).predict(1) == 0.5


def important(backend: Backend, batch_id: int, at: float, model: str = "m") -> Batch:
    return start(backend, batch_id, at, model=model, rows=1, wait_s=0.05)


def lesser(backend: Backend, batch_id: int, at: float, model: str = "n") -> Batch:
    return start(backend, batch_id, at, model=model, rank=1, lesser=True)


def test_lesser_batches_are_limited_beside_a_more_important_model_of_their_backend():
    backend = Backend(backend_state(models=("m", "n")))
    assert not backend.crowded("n", 1, now=0.0)
    important(backend, 1, 0.0)
    assert not backend.crowded("n", 1, now=0.0)
    lesser(backend, 2, 0.0)
    assert backend.lesser() == 1
    assert backend.crowded("n", 1, now=0.0)
    assert not backend.crowded("m", 1, now=0.0)
    assert not backend.crowded("n", 1, now=1.0)


def test_a_model_by_itself_is_never_crowded():
    backend = Backend(backend_state())
    important(backend, 1, 0.0)
    start(backend, 2, 0.0, rank=1, lesser=True)
    assert not backend.crowded("m", 1, now=0.0)
    backend.note_end(important(backend, 3, 0.0), 0.01, now=1.0)
    important(backend, 4, 5.0)  # not even by a quiet spell
    assert (backend.concurrency.limit, backend.concurrency.moved_at) == (1.0, 0.0)


def test_a_model_that_is_left_by_itself_tells_the_limit_nothing_of_what_was_beside_it():
    backend = Backend(backend_state(models=("m", "n")))
    lesser(backend, 1, 0.0)
    batch = important(backend, 2, 0.0)
    assert batch.crowd == 1
    backend.change(backend_state(), now=0.005)
    backend.note_end(batch, backend.finish(batch, now=0.01), now=0.01)
    assert (backend.concurrency.limit, backend.concurrency.ratio, backend.concurrency.moved_at) == (1.0, 1.0, 0.0)


def test_a_class_without_a_bound_on_its_wait_tells_the_limit_nothing_though_lesser_ones_are_beside_it():
    backend = Backend(backend_state(models=("m", "n")))
    lesser(backend, 1, 0.0)
    batch = start(backend, 2, 0.0, rows=1)
    backend.note_end(batch, backend.finish(batch, now=0.01), now=0.01)
    assert (backend.concurrency.limit, backend.concurrency.ratio, backend.concurrency.moved_at) == (1.0, 1.0, 0.0)


def test_a_batch_of_the_same_rank_is_no_lesser_one():
    backend = Backend(backend_state(models=("m", "n")))
    important(backend, 1, 0.0, "n")
    assert important(backend, 2, 0.0).crowd == 0


@pytest.mark.parametrize("other", [{"model": "n"}, {"latency_key": "short"}])
def test_what_a_batch_takes_alone_is_known_by_its_model_and_latency_key(other):
    backend = Backend(backend_state(models=("m", "n", "beside")))

    def serve(at: float, took_s: float, **about: str) -> None:
        batch = start(backend, 1, at, rows=1, wait_s=0.05, **({"latency_key": "long"} | about))
        backend.note_end(batch, backend.finish(batch, now=at + took_s), now=at + took_s)

    for number in range(10):
        serve(number / 20, 0.04)
        serve(number / 20, 0.01, **other)
    lesser(backend, 2, 0.5, "beside")
    serve(0.5, 0.04)
    assert backend.concurrency.ratio == pytest.approx(1.0)


def test_an_important_batch_beside_lesser_ones_moves_the_limit():
    backend = Backend(backend_state(models=("m", "n")))
    for batch_id in range(10):
        alone = important(backend, batch_id, 0.0)
        backend.note_end(alone, backend.finish(alone, now=0.01), now=0.01)
    beside = lesser(backend, 20, 0.5)
    slowed = important(backend, 21, 0.5)
    assert slowed.crowd == 1
    backend.note_end(slowed, backend.finish(slowed, now=0.51), now=0.51)
    assert backend.concurrency.limit == 1.05
    # A batch of a class without a bound on its wait tells nothing.
    backend.note_end(beside, backend.finish(beside, now=2.0), now=2.0)
    assert backend.concurrency.moved_at == 0.51


def test_a_breaker_lets_a_probe_out_when_its_time_has_come():
    backend = Backend(backend_state())
    heard(backend, 1, Verdict.LOST)
    assert backend.tick(now=backend.breakers["m"].retry_at) == ["m"]
    assert backend.tick(now=backend.breakers["m"].retry_at) == []


def test_a_backend_that_is_not_ready_is_missed_with_its_models_until_it_serves_them_again():
    backend = Backend(backend_state(models=("m", "n")))
    backend.change(backend_state(models=("m",)), now=1.0)
    assert backend.missed == {}
    backend.change(backend_state(ready=False), now=2.0)
    backend.change(backend_state(ready=False), now=3.0)
    assert backend.missed == {"m": 2.0}
    backend.change(backend_state(models=("n",)), now=4.0)
    assert backend.missed == {"m": 2.0}
    backend.change(backend_state(models=("m", "n")), now=5.0)
    assert backend.missed == {}


class TestJoining:
    """One instance is busy, and an execution with the key `j` lies ready."""

    @staticmethod
    def backend(merge_key=None, rows=1, **capacity):
        backend = Backend(backend_state(**capacity))
        for number, each in enumerate((1, rows), 1):
            ticket = make_ticket(join_key="j", merge_key=merge_key, rows=each)
            start(backend, number, 0.0, tickets=(ticket,), join_key="j")
        return backend

    def test_a_ticket_joins_what_triton_runs_it_with(self):
        backend = self.backend()
        assert backend.joinable("m")
        assert (backend.spare("m"), backend.spare("unknown")) == (-1, 1)
        assert backend.ready(make_ticket(join_key="j")).rows == 1
        assert backend.ready(make_ticket(join_key="other")) is None
        assert backend.ready(make_ticket()) is None

    def test_what_could_have_been_merged_here_does_not_join(self):
        backend = self.backend("a")
        assert backend.ready(make_ticket(join_key="j", merge_key="a")) is None
        assert backend.ready(make_ticket(join_key="j", merge_key="b")) is not None
        assert backend.ready(make_ticket(join_key="j")) is not None

    def test_but_where_triton_waits_for_rows_it_does(self):
        backend = self.backend("a", queue_delay_s=0.1, delayed_below=4)
        assert backend.ready(make_ticket(join_key="j", merge_key="a")) is not None

    def test_rows_in_flight_stay_within_what_the_executions_may_hold(self):
        backend = self.backend(rows=8)
        assert backend.ready(make_ticket(join_key="j", rows=7)) is not None
        assert backend.ready(make_ticket(join_key="j", rows=8)) is None

    def test_nothing_joins_where_a_breaker_is_open_or_the_backend_is_not_ready(self):
        backend = self.backend()
        backend.breaker("m")
        assert not backend.joinable("m")
        backend = self.backend()
        backend.change(backend_state(ready=False), now=1.0)
        assert not backend.joinable("m")
        assert not backend.joinable("unknown")

    def test_an_execution_is_as_important_as_the_most_important_in_it(self):
        backend = self.backend(rows=2)
        into = backend.ready(make_ticket(join_key="j"))
        assert (into.rank, into.rank_rows) == (0, 2)
        start(backend, 3, 0.0, tickets=(make_ticket(join_key="j"),), rank=1, into=into)
        assert (into.rank, into.rank_rows, into.rows) == (0, 2, 3)


def test_a_model_that_failed_to_load_is_not_missed():
    backend = Backend(backend_state(models=("m", "n")))
    backend.change(backend_state(ready=False), now=2.0)
    backend.change(replace(backend_state(models=()), failed=frozenset({"m", "other"})), now=4.0)
    assert backend.missed == {"n": 2.0}


def deliver(backend, now, out, slots=4, latency_s=0.1):
    """An execution ends at a backend that has so many slots."""
    batch = make_batch(1, dispatched_at=now - latency_s * max(1, out / slots))
    batch.under_way = out
    backend.delivered(batch, 1, wanted=True, calm=True, now=now)


class TestParallelism:
    """How many executions are out at a time, where the configuration says one instance."""

    def test_as_many_as_were_found_to_deliver_more(self):
        backend, now = Backend(backend_state(max_batch_size=0)), 0.0
        while now < 20.0:
            now += 0.1 / min(4, backend._instances("m") + 1)
            deliver(backend, now, backend._instances("m") + 1)
        assert 3 <= backend._instances("m") <= 6
        for number in range(backend._instances("m") + 1):
            assert backend.has_place("m")
            start(backend, number, now)
        assert not backend.has_place("m")

    def test_of_a_model_with_a_batch_dimension_or_one_that_is_gone_nothing_is_tried(self):
        assert Backend(backend_state(max_batch_size=0)).learns("m")
        backend = Backend(backend_state())
        assert not backend.learns("m")
        assert not backend.learns("gone")

    def test_another_number_of_instances_makes_void_what_was_learned(self):
        backend = Backend(backend_state(max_batch_size=0))
        deliver(backend, 0.0, 2)
        backend._parallel["m"].ways = 9
        assert backend._instances("m") == 9
        backend.change(backend_state(instances=2, max_batch_size=0), now=1.0)
        deliver(backend, 1.0, 2)
        assert backend._instances("m") == 2

    @pytest.mark.parametrize("most", [1, 2, 5])
    def test_as_many_as_are_set_by_hand(self, most):
        backend = Backend(backend_state())
        backend.most_in_flight = {"m": most}
        for number in range(most):
            assert backend.has_place("m")
            start(backend, number, 0.0)
        assert not backend.has_place("m")

    def test_streams_that_have_begun_make_room_for_more(self):
        backend = Backend(backend_state(streams=True))
        batches = []
        for _ in range(6):
            while backend.has_place("m"):
                batches.append(start(backend, len(batches), 0.0))
            for batch in batches:
                backend.begin(batch)
        assert len(batches) == 18  # 2, 3, 5, 8, 12, 18
        assert not backend.begin(batches[0])

    def test_a_stream_that_waits_at_the_backend_keeps_nobody_out_who_is_more_important(self):
        backend = Backend(backend_state(streams=True))
        for number in range(2):
            start(backend, number, 0.0, rank=1)
        assert not backend.has_place("m", 1)
        assert backend.has_place("m", 0)
        plain = Backend(backend_state())
        for number in range(2):
            start(plain, number, 0.0, rank=1)
        assert not plain.has_place("m", 0)


def test_rows_in_flight_of_a_merge_key_are_those_of_its_own_executions():
    backend = Backend(backend_state(instances=2))
    assert backend.rows_in_flight("m", "k") == 0
    start(backend, 1, 0.0, rows=3, tickets=(make_ticket(merge_key="k"),))
    start(backend, 2, 0.0, rows=2, tickets=(make_ticket(merge_key="l"),))
    assert (backend.rows_in_flight("m", "k"), backend.rows_in_flight("m", "l")) == (3, 2)


def test_behind_a_network_as_many_are_under_way_as_keep_the_instance_busy():
    backend = Backend(replace(backend_state(), round_trip_s=0.020))
    assert backend._instances("m") == 1
    backend.finish(start(backend, 1, 0.0), now=0.025)
    assert backend._instances("m") == 5
