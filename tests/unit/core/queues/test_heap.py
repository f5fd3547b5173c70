import pytest

from scheduler.core.queues.heap import SLACK_ENTRIES, DeadlineHeap
from scheduler.core.ticket import Ticket, TicketState
from tests.unit.core.build import queued_ticket


def end(heap: DeadlineHeap, ticket: Ticket) -> None:
    ticket.state = TicketState.ENDED
    heap.forget(ticket)


def test_a_ticket_without_a_deadline_is_not_watched():
    heap = DeadlineHeap()
    ticket = queued_ticket()
    heap.push(ticket)
    assert heap.next_deadline() is None
    end(heap, ticket)
    assert len(heap) == 0


def test_the_earliest_deadline_comes_first_and_ties_go_to_the_older_ticket():
    heap = DeadlineHeap()
    late, first, second = (queued_ticket(deadline=deadline) for deadline in (3.0, 2.0, 2.0))
    for ticket in (late, second, first):
        heap.push(ticket)
    assert heap.next_deadline() == 2.0
    assert [heap.pop_due(now=3.0) for _ in range(4)] == [first, second, late, None]


def test_a_ticket_is_due_at_its_deadline_and_not_before():
    heap = DeadlineHeap()
    ticket = queued_ticket(deadline=2.0)
    heap.push(ticket)
    assert heap.pop_due(now=1.999) is None
    assert heap.pop_due(now=2.0) is ticket


def test_a_ticket_that_no_longer_waits_is_never_due():
    heap = DeadlineHeap()
    gone, waiting = queued_ticket(deadline=1.0), queued_ticket(deadline=2.0)
    heap.push(gone)
    heap.push(waiting)
    end(heap, gone)
    assert heap.next_deadline() == 2.0
    assert heap.pop_due(now=9.0) is waiting
    assert heap.pop_due(now=9.0) is None


def test_a_retrying_ticket_is_watched():
    heap = DeadlineHeap()
    ticket = queued_ticket(deadline=1.0)
    ticket.state = TicketState.RETRYING
    heap.push(ticket)
    assert heap.pop_due(now=1.0) is ticket


def test_a_ticket_pushed_again_while_its_dead_entry_remains_is_due_once():
    heap = DeadlineHeap()
    ticket = queued_ticket(deadline=1.0)
    heap.push(ticket)
    ticket.state = TicketState.IN_FLIGHT
    heap.forget(ticket)
    ticket.state = TicketState.RETRYING
    heap.push(ticket)
    assert heap.pop_due(now=1.0) is ticket
    ticket.state = TicketState.ENDED
    assert heap.pop_due(now=1.0) is None
    assert len(heap) == 0


def test_dead_entries_never_outnumber_the_living_by_more_than_the_slack():
    heap = DeadlineHeap()
    living = [queued_ticket(deadline=1e9) for _ in range(10)]
    for ticket in living:
        heap.push(ticket)
    for _ in range(1000):
        ticket = queued_ticket(deadline=1e9)
        heap.push(ticket)
        end(heap, ticket)
        assert len(heap) <= 2 * len(living) + SLACK_ENTRIES
    assert heap.next_deadline() == 1e9


def lengths(heap: DeadlineHeap, count: int) -> list[int]:
    """The heap's length after each of so many late tickets that came and left at once."""
    seen = []
    for _ in range(count):
        ticket = queued_ticket(deadline=1e9)
        heap.push(ticket)
        end(heap, ticket)
        seen.append(len(heap))
    return seen


@pytest.mark.parametrize(("living", "dead"), [(10, SLACK_ENTRIES + 1), (100, 101)])
def test_it_is_rebuilt_as_soon_as_the_dead_exceed_the_slack_and_outnumber_the_living(living, dead):
    heap = DeadlineHeap()
    for _ in range(living):
        heap.push(queued_ticket(deadline=1.0))
    for _ in range(2):
        assert lengths(heap, dead) == [*range(living + 1, living + dead), living]


@pytest.mark.parametrize(("early", "late"), [(60, 0), (20, 40)])
def test_dead_entries_that_were_met_at_the_top_count_no_longer(early, late):
    heap = DeadlineHeap()
    for _ in range(10):
        heap.push(queued_ticket(deadline=2.0))
    for deadline in [1.0] * early + [1e9] * late:
        ticket = queued_ticket(deadline=deadline)
        heap.push(ticket)
        end(heap, ticket)
    assert heap.next_deadline() == 2.0
    more = SLACK_ENTRIES + 1 - late
    assert lengths(heap, more) == [*range(10 + late + 1, 10 + late + more), 10]


def test_a_heap_watches_as_long_as_an_entry_is_left():
    heap = DeadlineHeap()
    heap.push(queued_ticket())
    assert not heap.watches
    heap.push(queued_ticket(deadline=1.0))
    assert heap.watches
    heap.pop_due(now=1.0)
    assert not heap.watches
