from scheduler.core.admission.displacement import SLACK_ENTRIES, Newest
from scheduler.core.ticket import TicketState
from tests.unit.core.build import queued_ticket


def test_the_newest_comes_first():
    newest, tickets = Newest(), [queued_ticket() for _ in range(3)]
    for ticket in tickets:
        newest.push(ticket)
    assert [newest.pop() for _ in range(4)] == [*reversed(tickets), None]


def test_who_does_not_wait_any_more_is_passed_over():
    newest, tickets = Newest(), [queued_ticket() for _ in range(4)]
    for ticket, state in zip(tickets, (TicketState.QUEUED, *list(TicketState)[2:]), strict=True):
        newest.push(ticket)
        ticket.state = state
    assert newest.pop() is tickets[0]
    assert newest.pop() is None


def test_memory_follows_the_living():
    newest, kept = Newest(), queued_ticket()
    newest.push(kept)
    for _ in range(5000):
        ticket = queued_ticket()
        newest.push(ticket)
        ticket.state = TicketState.IN_FLIGHT
        assert len(newest) <= SLACK_ENTRIES + 2
    assert newest.pop() is kept


def test_the_living_are_looked_at_a_few_times_each_however_many_they_are():
    looks = 0

    class Counting:
        @property
        def state(self):
            nonlocal looks
            looks += 1
            return TicketState.QUEUED

    newest = Newest()
    for _ in range(10_000):
        newest.push(Counting())
    # A sweep comes when there are twice as many as after the last: 1 + 1/2 + 1/4 and so on of the last one.
    assert looks <= 2 * 10_000


def test_nobody_is_lost_when_the_dead_are_swept_out():
    newest, tickets = Newest(), [queued_ticket() for _ in range(1000)]
    for ticket in tickets:
        newest.push(ticket)
    assert [newest.pop() for _ in range(1000)] == list(reversed(tickets))
