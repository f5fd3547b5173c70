from scheduler.core.backends.backend import Backend
from scheduler.core.backends.placement import home, place
from scheduler.core.latency.estimate import Estimator
from scheduler.core.ticket import Ticket
from tests.unit.core.build import backend_state, make_batch, make_ticket


def where(backends: list[Backend], ticket: Ticket) -> Backend | None:
    able = [backend for backend in backends if backend.has_place(ticket.model)]
    for backend in able:
        backend.estimator(ticket.model, Estimator())
    return place(able, backends, ticket) if able else None


def backends(*loads: list[float], **state: object) -> list[Backend]:
    """One backend for each list of estimates in flight."""
    made = []
    for number, estimates in enumerate(loads):
        backend = Backend(backend_state(f"gpu{number}", instances=8, **state))
        for batch_id, estimate_s in enumerate(estimates):
            backend.start(make_batch(batch_id, estimate_s=estimate_s))
        made.append(backend)
    return made


def test_the_least_work_wins_not_the_fewest_batches():
    assert where(backends([1.0], [0.1, 0.1, 0.1]), make_ticket()).name == "gpu1"


def test_a_backend_where_the_batch_runs_at_once_comes_before_one_where_it_lies_ready():
    assert where(backends([0.001] * 8, [5.0]), make_ticket()).name == "gpu1"


def test_a_tie_goes_to_the_backend_named_first():
    assert where(backends([0.5], [0.5]), make_ticket()).name == "gpu0"


def test_a_backend_without_a_place_is_passed_over():
    assert where(backends([0.0] * 9, [5.0]), make_ticket()).name == "gpu1"


def test_no_place_anywhere():
    assert where(backends([0.0] * 9), make_ticket()) is None
    assert where(backends([], ready=False), make_ticket()) is None
    assert where([], make_ticket()) is None


def test_the_faster_of_two_idle_backends_wins():
    slow, fast = backends([], [])
    for backend, row_s in ((slow, 0.02), (fast, 0.01)):
        backend.estimator("m", Estimator()).learn(None, 1, row_s)
    assert where([slow, fast], make_ticket()).name == "gpu1"


def test_the_faster_one_for_the_tickets_own_key_wins():
    first, second = backends([], [])
    for backend, of_key_s, of_other_s in ((first, 0.02, 0.01), (second, 0.01, 0.02)):
        backend.estimator("m", Estimator()).learn("k", 1, of_key_s)
        backend.estimator("m", Estimator()).learn("other", 1, of_other_s)
    assert where([first, second], make_ticket(merge_key="k")) is second
    assert where([first, second], make_ticket(merge_key="other")) is first


def test_work_and_own_speed_count_together():
    slow, fast = backends([], [0.015])
    for backend, row_s in ((slow, 0.02), (fast, 0.01)):
        backend.estimator("m", Estimator()).learn(None, 1, row_s)
    assert where([slow, fast], make_ticket()).name == "gpu0"


def test_a_ticket_goes_where_it_fits_and_waits_for_a_place_there():
    small, large = Backend(backend_state("small", max_batch_size=4)), Backend(backend_state("large", max_batch_size=8))
    assert where([small, large], make_ticket(rows=8)).name == "large"
    for batch_id in range(2):
        large.start(make_batch(batch_id))
    assert where([small, large], make_ticket(rows=8)) is None
    assert where([small, large], make_ticket(rows=4)).name == "small"


def test_a_ticket_that_fits_nowhere_goes_where_there_is_a_place():
    assert where(backends([0.1] * 9, []), make_ticket(rows=99)).name == "gpu1"


def test_a_new_sequence_goes_where_the_fewest_are_for_each_instance():
    small, large = Backend(backend_state("small", instances=1)), Backend(backend_state("large", instances=4))
    assert home([small, large], "m", {"small": 1, "large": 3}) is large
    assert home([small, large], "m", {"small": 1, "large": 5}) is small


def test_among_backends_with_as_many_sequences_the_least_work_takes_the_new_one():
    assert home(backends([1.0], [0.1, 0.1]), "m", {"gpu0": 1, "gpu1": 1}).name == "gpu1"
    assert home(backends([1.0], [0.1, 0.1]), "m", {"gpu1": 1}).name == "gpu0"


def test_a_new_sequence_ties_to_the_backend_named_first():
    assert home(backends([0.5], [0.5]), "m", {}).name == "gpu0"


def test_a_new_sequence_goes_to_an_open_breaker_only_where_all_are():
    first, second = backends([], [])
    first.breaker("m")
    assert home([first, second], "m", {"gpu1": 9}) is second
    second.breaker("m")
    assert home([first, second], "m", {"gpu1": 9}) is first
