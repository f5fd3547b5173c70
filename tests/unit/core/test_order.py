from scheduler.core.order import SLACK_ENTRIES, TicketQueue
from scheduler.core.ticket import Ticket, TicketState
from tests.unit.core.build import queued_ticket


def queue_of(*tickets: Ticket) -> TicketQueue:
    queue = TicketQueue()
    for ticket in tickets:
        queue.append(ticket)
    return queue


def leave(queue: TicketQueue, ticket: Ticket) -> None:
    ticket.state = TicketState.ENDED
    queue.remove(ticket)


def test_first_come_first_served():
    first, second = queued_ticket(merge_key="a"), queued_ticket()
    queue = queue_of(first, second)
    assert queue.head() is first
    leave(queue, first)
    assert queue.head() is second
    leave(queue, second)
    assert queue.head() is None
    assert len(queue) == 0


def test_the_oldest_of_a_merge_key_is_found_behind_others():
    other, oldest, younger = queued_ticket(), queued_ticket(merge_key="a"), queued_ticket(merge_key="a")
    queue = queue_of(other, oldest, younger)
    assert queue.head_of("a") is oldest
    leave(queue, oldest)
    assert queue.head_of("a") is younger
    leave(queue, younger)
    assert queue.head_of("a") is None
    assert queue.head() is other


def test_a_merge_key_that_never_came_has_no_head():
    assert queue_of(queued_ticket(merge_key="a")).head_of("b") is None


def test_iteration_gives_the_living_in_order():
    first, gone, last = queued_ticket(), queued_ticket(), queued_ticket()
    queue = queue_of(first, gone, last)
    leave(queue, gone)
    assert list(queue) == [first, last]
    assert len(queue) == 2


def test_memory_follows_the_living_when_tickets_leave_from_the_middle():
    oldest = queued_ticket(merge_key="kept")
    queue = queue_of(oldest)
    for number in range(1000):
        ticket = queued_ticket(merge_key=f"key{number}")
        queue.append(ticket)
        leave(queue, ticket)
        assert len(queue._fifo) <= 2 * len(queue) + SLACK_ENTRIES
        assert set(queue._by_key) == {"kept"}
    assert queue.head() is oldest
    assert queue.head_of("kept") is oldest


def test_the_dead_are_swept_out_as_soon_as_they_outnumber_the_living_and_the_slack():
    queue = queue_of(queued_ticket())
    lengths = []
    for _ in range(SLACK_ENTRIES + 3):
        ticket = queued_ticket()
        queue.append(ticket)
        leave(queue, ticket)
        lengths.append(len(queue._fifo))
    assert lengths == [*range(2, SLACK_ENTRIES + 3), 1, 2]
    assert len(queue) == 1
