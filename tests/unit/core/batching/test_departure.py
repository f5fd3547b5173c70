import pytest

from scheduler.core.batching.departure import Departure
from scheduler.core.latency.estimate import LatencyLine
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
    """Who waits, and who was sent away; at the fastest everything takes `part` of what it takes on average."""

    def __init__(
        self, waiting: int = 32, *, crowded: bool = True, part: float = 0.8, idle: bool = False, line=None
    ) -> None:
        self.evicted: list[Ticket] = []
        self.line = line or learned()
        self.part = part
        self.departure = Departure(
            START,
            self.line,
            32,
            lambda ticket: waiting,
            self.evicted.append,
            None if idle else self.earliest_end,
            crowded=crowded,
        )

    def earliest_end(self, ticket: Ticket, rows: int) -> float:
        return START + self.part * self.line.predict(rows)


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


def test_without_a_crowd_only_who_would_be_late_in_the_fastest_batch_of_its_rows_is_evicted():
    lobby = Lobby(crowded=False)
    assert not lobby.departure.misses(due(0.0241))
    assert not lobby.departure.misses(due(0.0961), beside=9)
    late = due(0.0239), due(0.0959)
    assert lobby.departure.misses(late[0])
    assert lobby.departure.misses(late[1], beside=9)
    assert lobby.evicted == [*late]


def test_what_is_not_known_evicts_nobody():
    assert not Lobby(crowded=False, part=0.0).departure.misses(due(0.001))


@pytest.mark.parametrize("crowded", [True, False])
def test_on_an_idle_instance_everybody_is_tried(crowded):
    lobby = Lobby(crowded=crowded, idle=True)
    assert not lobby.departure.misses(due(0.001))
    assert not lobby.departure.misses(due(0.001), beside=31)


def test_who_was_let_in_to_be_tried_is():
    ticket = due(0.001)
    ticket.tried = True
    assert not Lobby().departure.misses(ticket)


def test_without_a_crowd_a_batch_shrinks_as_far_as_its_ticket_needs_and_for_none_that_is_late_anyway():
    lobby = Lobby(crowded=False)
    assert lobby.departure.rows_for(due(0.221), 32) == 20
    assert lobby.departure.rows_for(due(0.221), 18) == 18
    assert lobby.departure.rows_for(due(0.051), 32) == 3
    assert lobby.departure.rows_for(due(0.051, rows=4), 32) == 32
    assert lobby.departure.rows_for(due(0.001), 32) == 32


def test_who_waits_is_asked_for_the_ticket_that_may_be_late():
    asked = []
    departure = Departure(
        START, learned(), 32, lambda ticket: asked.append(ticket) or 1, asked.append, lambda *_: START, crowded=True
    )
    ticket = due(0.031)
    departure.misses(ticket)
    assert asked == [ticket]
