import pytest

from scheduler.core.departure import Departure
from scheduler.core.estimate import KNOWN_SAMPLES, LatencyLine
from scheduler.core.ticket import RETRYING, Ticket
from tests.unit.core.build import queued_ticket

START = 100.0
# Nine tenths of what batches of 32 serve take batches of 12.
CONSTANT_S, ROW_S = 0.020, 0.010


def learned(samples: int = 10) -> LatencyLine:
    line = LatencyLine()
    for number in range(samples):
        rows = 1 + 31 * (number % 2)
        line.learn(rows, CONSTANT_S + ROW_S * rows)
    return line


class Lobby:
    """Who waits, and who was sent away."""

    def __init__(self, waiting: int = 32, line: LatencyLine | None = None) -> None:
        self.evicted: list[Ticket] = []
        self.departure = Departure(START, line or learned(), 32, lambda ticket: waiting, self.evicted.append)


def due(after_s: float | None, **about: object) -> Ticket:
    return queued_ticket(deadline=None if after_s is None else START + after_s, **about)


@pytest.mark.parametrize("after_s", [None, 0.341, 5.0])
def test_who_can_bear_a_full_batch_never_misses_nor_shrinks_it(after_s):
    lobby = Lobby()
    assert not lobby.departure.misses(due(after_s), beside=31)
    assert lobby.departure.rows_for(due(after_s), 32) == 32
    assert not lobby.evicted


def test_a_batch_shrinks_to_what_its_most_urgent_ticket_can_make():
    lobby = Lobby()
    assert not lobby.departure.misses(due(0.221))
    assert lobby.departure.rows_for(due(0.221), 32) == 20
    assert lobby.departure.rows_for(due(0.221), 18) == 18


def test_and_no_further_than_to_what_serves_nine_tenths_of_the_rate():
    lobby = Lobby()
    assert lobby.departure.rows_for(due(0.05), 32) == 12
    ticket = due(0.139)
    assert lobby.departure.misses(ticket)
    assert lobby.evicted == [ticket]
    assert not lobby.departure.misses(due(0.141))


def test_where_few_wait_it_could_be_as_small_as_they_are():
    assert not Lobby(waiting=1).departure.misses(due(0.031))


def test_whoever_rides_comes_behind_what_is_in_the_batch():
    lobby = Lobby(waiting=1)
    assert not lobby.departure.misses(due(0.131), beside=10)
    assert lobby.departure.misses(due(0.131), beside=11)


def test_a_retry_goes_alone():
    ticket = due(0.031)
    ticket.state = RETRYING
    assert not Lobby().departure.misses(ticket)


def test_more_rows_than_a_batch_has_take_as_long_as_they_take():
    assert not Lobby(waiting=40).departure.misses(due(0.421, rows=40))
    assert Lobby(waiting=40).departure.misses(due(0.419, rows=40))


def test_of_a_model_of_which_little_is_known_nobody_misses_anything():
    lobby = Lobby(line=learned(samples=2))
    assert not lobby.departure.misses(due(0.001))
    assert lobby.departure.rows_for(due(0.001), 32) == 32


def test_from_the_least_that_is_known_on_a_batch_shrinks():
    assert Lobby(line=learned(samples=KNOWN_SAMPLES)).departure.rows_for(due(0.221), 32) == 20


def test_who_waits_is_asked_for_the_ticket_that_may_be_late():
    asked = []
    departure = Departure(START, learned(), 32, lambda ticket: asked.append(ticket) or 1, asked.append)
    ticket = due(0.031)
    departure.misses(ticket)
    assert asked == [ticket]
