from math import inf

import pytest

from scheduler.core.backends.backend import Backend
from scheduler.core.backends.patience import COLD_HANG_S, HANG_FACTOR, SILENT, Patience, overdue_after_s
from scheduler.core.ticket import TicketState
from tests.unit.core.build import backend_state, make_batch, make_ticket

HANG_S, OUTAGE_S = 5.0, 30.0


def batch_of(batch_id: int = 1, *, wanted: bool = True, estimate_s: float = 0.01, **others):
    """A batch that left at 1.0 and that an instance took at once."""
    ticket = make_ticket()
    ticket.state = TicketState.IN_FLIGHT if wanted else TicketState.ENDED
    values = {"dispatched_at": 1.0, "started_at": 1.0} | others
    return make_batch(batch_id, (ticket,), estimate_s=estimate_s, **values)


class Bench:
    """Batches at one backend, and the patience with them."""

    def __init__(self, *batches, **limits: float) -> None:
        self.patience = Patience(HANG_S, OUTAGE_S, limits)
        self.backend = Backend(backend_state())
        self.batches = {batch.batch_id: batch for batch in batches}
        for batch in batches:
            self.patience.begin(batch, known=True)

    def look(self, at: float) -> tuple[list[int], list[tuple[int, str]]]:
        """Numbers of the overdue, and of those to be given up with the reasons."""
        found = self.patience.look(self.batches, {"gpu0": self.backend}, now=at)
        return [each.batch_id for each in found.overdue], [(each.batch_id, why) for each, why in found.given_up]


@pytest.mark.parametrize(
    ("estimate_s", "known", "hang_s", "patience_s"),
    [
        (0.001, True, 5.0, 5.0),
        (0.001, True, 0.5, 0.5),
        (2.0, True, 5.0, HANG_FACTOR * 2.0),
        (0.001, False, 5.0, COLD_HANG_S),
        (0.001, False, 100.0, 100.0),
    ],
)
def test_a_batch_is_overdue_after_the_floor_or_a_multiple_of_its_estimate(estimate_s, known, hang_s, patience_s):
    assert overdue_after_s(estimate_s, known=known, hang_s=hang_s) == patience_s


def test_where_nothing_is_out_there_is_nothing_to_look_at():
    bench = Bench()
    assert bench.patience.look_at == inf
    assert bench.look(100.0) == ([], [])


def test_an_overdue_batch_is_asked_about_again_and_again():
    bench = Bench(batch_of())
    assert bench.patience.look_at == 6.0
    assert bench.look(5.9) == ([], [])
    assert bench.look(6.0) == ([1], [])
    assert bench.patience.look_at == 11.0
    assert bench.look(11.5) == ([1], [])
    assert bench.patience.look_at == 16.5


def test_what_lies_ready_is_not_overdue_however_long_it_lies():
    bench = Bench(batch_of(started_at=None))
    for at in (6.0, 11.0, 16.0):
        assert bench.patience.look_at == at
        assert bench.look(at) == ([], [])


def test_a_sign_puts_the_question_off():
    batch = batch_of()
    bench = Bench(batch)
    batch.sign_at = 4.0
    assert bench.look(6.0) == ([], [])
    assert bench.patience.look_at == 9.0
    assert bench.look(9.0) == ([1], [])
    assert batch.overdue
    batch.sign_at = 9.5
    bench.look(14.0)
    assert not batch.overdue
    assert bench.patience.look_at == 14.5


def test_a_model_may_have_a_limit_of_its_own():
    limited, other = batch_of(1), batch_of(2, model="n")
    bench = Bench(limited, other, m=2.0)
    assert bench.patience.look_at == 3.0
    assert bench.look(3.0) == ([], [(1, "models.m.hang_s")])
    limited.tickets[0].state = TicketState.ENDED
    assert bench.look(6.0) == ([1, 2], [])


def test_a_limit_counts_from_the_last_sign():
    batch = batch_of()
    bench = Bench(batch, m=8.0)
    batch.sign_at = 5.0
    assert bench.look(9.0) == ([], [])
    assert bench.look(10.0) == ([1], [])
    assert bench.patience.look_at == 13.0
    assert bench.look(13.0) == ([], [(1, "models.m.hang_s")])


def test_a_limit_gives_up_nothing_that_nobody_waits_for():
    bench = Bench(batch_of(wanted=False), m=2.0)
    assert bench.look(3.0) == ([], [])


def test_a_silent_backend_is_not_asked_and_its_overdue_batches_end_after_an_outage():
    bench = Bench(batch_of(1), batch_of(2, estimate_s=10.0))
    bench.backend.change(backend_state(ready=False), now=2.0)
    assert bench.look(6.0) == ([], [])
    assert bench.look(31.9) == ([], [])
    assert bench.patience.look_at == 32.0
    assert bench.look(32.0) == ([], [(1, SILENT)])
    assert bench.patience.look_at == 101.0
    bench.backend.change(backend_state(), now=50.0)
    del bench.batches[1]
    assert bench.look(101.0) == ([2], [])


def test_new_settings_hold_for_what_is_out():
    bench = Bench(batch_of())
    bench.patience.reconfigure(HANG_S, OUTAGE_S, {"m": 1.0}, now=2.5)
    assert bench.look(2.5) == ([], [(1, "models.m.hang_s")])
