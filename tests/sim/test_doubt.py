"""What `python -m simulate.doubt` counts."""

from simulate.doubt import SHORT, SHORT_WAIT_S, Case, Measured, measure
from simulate.world.backend import Service

LINE = Service(0.005, 0.001, 1, 8, 0.1)


def test_who_doubts_less_lets_more_in_and_more_of_it_in_vain() -> None:
    little, much = Measured(), Measured()
    measure(Case(LINE, None, 1), 0.75, 1, little)
    measure(Case(LINE, None, 1), 1.5, 1, much)
    assert little.sampled == much.sampled == 1
    assert little.accepted > much.accepted
    assert little.accepted_falsely / little.accepted > much.accepted_falsely / much.accepted


def test_who_was_let_in_is_in_time_or_let_in_falsely() -> None:
    counts = Measured()
    measure(Case(LINE, None, 2), 1.5, 1, counts)
    assert counts.in_time + counts.accepted_falsely == counts.accepted
    assert 0.8 * counts.capacity < counts.in_time < 1.1 * counts.capacity


def test_where_waits_keep_batches_short_no_more_are_let_in_falsely_than_where_they_are_full() -> None:
    full, short = Measured(), Measured()
    measure(Case(SHORT[0], None, 1), 1.5, 1, full)
    measure(Case(SHORT[0], SHORT_WAIT_S, 1), 1.5, 1, short)
    assert short.accepted_falsely / short.accepted < full.accepted_falsely / full.accepted + 0.1
