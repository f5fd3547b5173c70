from scheduler.core.backend import Backend
from scheduler.core.placement import place
from tests.unit.core.build import backend_state, make_batch


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
    assert place(backends([1.0], [0.1, 0.1, 0.1]), "m").name == "gpu1"


def test_a_backend_where_the_batch_runs_at_once_comes_before_one_where_it_lies_ready():
    assert place(backends([0.001] * 8, [5.0]), "m").name == "gpu1"


def test_a_tie_goes_to_the_backend_named_first():
    assert place(backends([0.5], [0.5]), "m").name == "gpu0"


def test_a_backend_without_a_place_is_passed_over():
    assert place(backends([0.0] * 9, [5.0]), "m").name == "gpu1"


def test_no_place_anywhere():
    assert place(backends([0.0] * 9), "m") is None
    assert place(backends([], ready=False), "m") is None
    assert place([], "m") is None
