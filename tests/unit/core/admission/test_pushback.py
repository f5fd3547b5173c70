import pytest

from scheduler.core.admission.pushback import JITTER, MAX_S, Pushback


def refuse(pushback: Pushback, per_second: int, seconds: range) -> list[int]:
    """The time, before jitter, at the end of each second with so many refusals."""
    times = []
    for second in seconds:
        for number in range(per_second):
            pushback.refused(number, now=second + number / per_second)
        times.append(pushback.base_s(now=second))
    return times


def test_a_few_refusals_leave_it_at_one_second():
    assert refuse(Pushback(), 2, range(1000, 1020)) == [1] * 20


def test_three_refusals_a_second_double_it_once_in_its_own_length():
    times = refuse(Pushback(), 3, range(1000, 1033))
    assert times == [1] + [2] * 2 + [4] * 4 + [8] * 8 + [16] * 16 + [32] * 2


def test_a_spike_of_any_height_raises_it_no_faster():
    assert refuse(Pushback(), 1000, range(1000, 1007)) == [1, 2, 2, 4, 4, 4, 4]


def test_it_never_exceeds_the_maximum():
    assert max(refuse(Pushback(), 200, range(1000, 1200))) == MAX_S


def test_fewer_refusals_than_seconds_shrink_it_by_one_a_second():
    pushback = Pushback()
    refuse(pushback, 3, range(1000, 1015))
    assert pushback.base_s(now=1014.0) == 8
    # Every tenth second there is one refusal; what was refused before leaves the window first.
    refuse(pushback, 1, range(1023, 1025))
    assert pushback.base_s(now=1024.0) == 6


def test_silence_up_to_its_own_length_is_what_it_asked_for_and_beyond_shrinks_it():
    pushback = Pushback()
    refuse(pushback, 3, range(1000, 1015))
    pushback.refused(1, now=1014 + 8 + 5)
    assert pushback.base_s(now=1027.0) == 3
    pushback.refused(1, now=9000.0)
    assert pushback.base_s(now=9000.0) == 1


def test_it_falls_by_itself_when_nobody_is_refused_any_more():
    pushback = Pushback()
    assert pushback.base_s(now=0.0) == 1
    refuse(pushback, 3, range(1000, 1015))
    # 8 s for those who were told to come again, and then a second a second; to look at it changes nothing.
    assert [pushback.base_s(now=now) for now in (1014.9, 1022.9, 1023.0, 1027.5, 1029.0, 5000.0)] == [8, 8, 7, 3, 1, 1]
    assert pushback.base_s(now=1022.0) == 8


def test_the_first_refusal_ever_asks_for_about_a_second():
    assert 1 - JITTER <= Pushback().refused(1, now=5000.0) <= 1 + JITTER


def test_jitter_spreads_callers_evenly_and_repeats_exactly():
    times = [Pushback().refused(ticket_id, now=0.0) for ticket_id in range(1000)]
    assert min(times) == pytest.approx(1 - JITTER, abs=0.01)
    assert max(times) == pytest.approx(1 + JITTER, abs=0.01)
    assert sum(times) / 1000 == pytest.approx(1.0, abs=0.01)
    assert times[7] == Pushback().refused(7, now=123.0)


def test_as_many_refusals_as_seconds_leave_it_where_it_is():
    pushback = Pushback()
    assert refuse(pushback, 3, range(1000, 1002)) == [1, 2]
    assert refuse(pushback, 1, range(1002, 1008)) == [2] * 6


def test_no_more_seconds_are_remembered_than_the_longest_pushback_has():
    pushback = Pushback()
    refuse(pushback, 1, range(1000, 1100))
    assert len(pushback._counts) == MAX_S + 1


def test_the_jitter_of_a_ticket_is_that_of_its_number():
    # 7 * 2654435761 modulo 2**32 is 1401181143.
    assert Pushback().refused(7, now=0.0) == 0.75 + 0.5 * 1401181143 / 2**32
