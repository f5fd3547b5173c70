import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.queues.order import PATIENCE_S, SLACK_ENTRIES, TicketQueue, due
from scheduler.core.ticket import Ticket, TicketState
from tests.unit.core.build import make_ticket, queued_ticket


def queue_of(*tickets: Ticket) -> TicketQueue:
    queue = TicketQueue()
    for ticket in tickets:
        queue.append(ticket)
    return queue


def due_at(at: float, **others: object) -> Ticket:
    ticket = queued_ticket(**others)
    ticket.due = at
    return ticket


def leave(queue: TicketQueue, ticket: Ticket) -> None:
    ticket.state = TicketState.ENDED
    queue.remove(ticket)


def entries(queue: TicketQueue) -> int:
    """Tickets that it remembers, dead ones included."""
    return len(queue._all) + len(queue._all.early or ())


def test_an_empty_queue_has_no_head():
    assert (TicketQueue().head(), TicketQueue().head_of("a")) == (None, None)


def test_first_come_first_served():
    first, second = queued_ticket(merge_key="a"), queued_ticket()
    queue = queue_of(first, second)
    assert queue.head() is first
    leave(queue, first)
    assert queue.head() is second
    leave(queue, second)
    assert queue.head() is None
    assert len(queue) == 0


def test_there_is_an_index_only_while_a_second_key_waits():
    first, second = queued_ticket(merge_key="a"), queued_ticket(merge_key="a")
    queue = queue_of(first, second)
    assert queue._by_key is None
    assert (queue.head_of("a"), queue.head_of("b")) == (first, None)
    other = queued_ticket(merge_key="b")
    queue.append(other)
    assert (queue.head_of("a"), queue.head_of("b")) == (first, other)
    for ticket in (first, second, other):
        leave(queue, ticket)
    queue.append(queued_ticket())
    assert queue._by_key is None
    assert queue.head_of("a") is None


def test_tickets_without_a_key_stand_in_no_index():
    for keys in ((None, "a", None), ("a", None, None)):
        queue = queue_of(*(queued_ticket(merge_key=key) for key in keys))
        assert set(queue._by_key) == {"a"}


def test_a_second_key_finds_the_first_one_in_its_order_early_ones_included():
    late, early = due_at(2.0, merge_key="a"), due_at(1.0, merge_key="a")
    queue = queue_of(late, early, due_at(3.0, merge_key="b"))
    assert queue.head_of("a") is early
    leave(queue, early)
    assert queue.head_of("a") is late


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
        assert entries(queue) <= 2 * len(queue) + SLACK_ENTRIES
        assert set(queue._by_key or {"kept"}) == {"kept"}
    assert queue.head() is oldest
    assert queue.head_of("kept") is oldest


def test_the_dead_are_swept_out_as_soon_as_they_outnumber_the_living_and_the_slack():
    queue = queue_of(queued_ticket())
    lengths = []
    for _ in range(SLACK_ENTRIES + 3):
        ticket = queued_ticket()
        queue.append(ticket)
        leave(queue, ticket)
        lengths.append(entries(queue))
    assert lengths == [*range(2, SLACK_ENTRIES + 3), 1, 2]
    assert len(queue) == 1


@pytest.mark.parametrize(
    ("deadline", "at"), [(None, 5 + PATIENCE_S), (7.5, 7.5), (5 + PATIENCE_S, 5 + PATIENCE_S), (1e9, 5 + PATIENCE_S)]
)
def test_a_ticket_is_due_at_its_deadline_and_no_later_than_a_callers_patience(deadline, at):
    assert due(make_ticket(deadline=deadline), now=5.0) == at


def test_the_earliest_deadline_goes_first_over_all_and_by_key():
    late, early, middle = due_at(9.0, merge_key="k"), due_at(1.0), due_at(4.0, merge_key="k")
    queue = queue_of(late, early, middle)
    assert (queue.head(), queue.head_of("k")) == (early, middle)
    for expected in (early, middle, late):
        assert queue.head() is expected
        leave(queue, expected)
    assert queue.head() is None


def test_equal_ones_keep_their_order_of_arrival():
    tickets = [due_at(3.0) for _ in range(3)]
    queue = queue_of(gone := due_at(9.0), tickets[0])
    leave(queue, gone)
    for ticket in tickets[1:]:
        queue.append(ticket)
    for expected in tickets:
        assert queue.head() is expected
        leave(queue, expected)


def test_equal_ones_keep_their_order_of_arrival_when_the_dead_are_swept_out():
    queue = queue_of(gone := due_at(9.0), early := due_at(3.0, rows=4))
    leave(queue, gone)
    assert queue.head() is early
    others = [due_at(3.0, rows=2), due_at(4.0)]
    for ticket in others:
        queue.append(ticket)
    for _ in range(2 * SLACK_ENTRIES):
        queue.append(gone := due_at(9.0))
        leave(queue, gone)
    assert entries(queue) < 2 * SLACK_ENTRIES
    assert (len(queue), queue.rows) == (3, 7)
    for expected in (early, *others):
        assert queue.head() is expected
        leave(queue, expected)


def test_a_ticket_without_a_deadline_is_not_starved_by_deadlines_without_end():
    queue, patient = TicketQueue(), queued_ticket()
    patient.due = due(patient, now=0.0)
    queue.append(patient)
    for arrival in range(1000):  # ten a second, each with a deadline of one second, one served for each that comes
        ticket = queued_ticket(deadline=arrival / 10 + 1)
        ticket.due = due(ticket, now=arrival / 10)
        queue.append(ticket)
        served = queue.head()
        leave(queue, served)
        if served is patient:
            break
    assert arrival / 10 <= PATIENCE_S


@given(st.lists(st.tuples(st.floats(0, 9), st.sampled_from(["k", "l", None]), st.integers(0, 3)), max_size=80))
def test_any_order_of_arrival_and_leaving_is_served_by_when_it_is_due(steps):
    queue, living = TicketQueue(), []
    for at, merge_key, leaving in steps:
        ticket = due_at(at, merge_key=merge_key, rows=1 + leaving)
        queue.append(ticket)
        living.append(ticket)
        if leaving == 0:
            gone = living.pop(len(living) // 2)
            leave(queue, gone)
        assert len(queue) == len(living)
        assert queue.rows == sum(each.rows for each in living)
        assert sorted(each.ticket_id for each in queue) == sorted(each.ticket_id for each in living)
        for key in ("k", "l"):
            of_key = [each.due for each in living if each.merge_key == key]
            assert (queue.head_of(key).due if of_key else queue.head_of(key)) == min(of_key, default=None)
    for expected in sorted(each.due for each in living):
        assert queue.head().due == expected
        leave(queue, queue.head())


def test_memory_follows_the_living_when_tickets_come_out_of_order():
    queue = queue_of(due_at(1e9))
    for number in range(1000):
        ticket = due_at(1e6 - number)
        queue.append(ticket)
        leave(queue, ticket)
        assert entries(queue) <= 2 * len(queue) + SLACK_ENTRIES


class TestRowsBefore:
    def test_nothing_stands_before_the_first(self):
        assert TicketQueue().rows_before(due_at(1.0)) == 0
        assert queue_of(due_at(2.0, rows=5)).rows_before(due_at(1.0)) == 0

    def test_all_stand_before_the_last(self):
        queue = queue_of(due_at(2.0, rows=5), due_at(1.0, rows=3))
        assert queue.rows_before(due_at(2.0)) == 8
        assert queue.rows_before(due_at(9.0)) == 8

    def test_between_them_it_is_as_if_they_were_spread_evenly(self):
        queue = queue_of(*(due_at(float(at), rows=2) for at in range(3, 14)))
        assert queue.rows_before(due_at(8.0)) == 11

    def test_a_queue_whose_deque_has_emptied_counts_what_came_early(self):
        last, early = due_at(2.0), due_at(1.0, rows=3)
        queue = queue_of(last, early)
        leave(queue, last)
        assert queue.rows_before(due_at(1.0)) == 3


def test_delayed_tickets_go_behind_the_others_in_their_order():
    tickets = [queued_ticket(merge_key=key) for key in "abab"]
    queue = queue_of(*tickets)
    tickets[0].delayed = tickets[1].delayed = True
    served = []
    while (ticket := queue.head()) is not None:
        served.append(tickets.index(ticket))
        leave(queue, ticket)
    assert served == [2, 3, 0, 1]


def test_delayed_tickets_that_came_out_of_order_go_behind_the_others_too():
    last, early, earlier = due_at(3.0, merge_key="a"), due_at(2.0, merge_key="a"), due_at(1.0, merge_key="a")
    queue = queue_of(last, early, earlier)
    earlier.delayed = True
    assert queue.head() is early
    leave(queue, early)
    assert queue.head() is last
    last.delayed = True
    assert queue.head() is earlier
    leave(queue, earlier)
    assert queue.head() is last
    leave(queue, last)
    assert queue.head() is None


def test_a_key_has_its_own_delayed_tickets_also_where_it_came_later():
    first, second = queued_ticket(merge_key="a"), queued_ticket(merge_key="a")
    queue = queue_of(first, second)
    first.delayed = True
    assert queue.head() is second
    other = queued_ticket(merge_key="b")
    queue.append(other)
    assert queue.head_of("a") is second
    leave(queue, second)
    assert (queue.head_of("a"), queue.head()) == (first, other)
    assert sorted(each.ticket_id for each in queue) == sorted([first.ticket_id, other.ticket_id])


def test_memory_follows_the_living_where_all_are_delayed():
    queue = queue_of(queued_ticket())
    for _ in range(1000):
        ticket = queued_ticket()
        queue.append(ticket)
        ticket.delayed = True
        queue.head()
        leave(queue, ticket)
        assert queue._all.entries <= 2 * len(queue) + SLACK_ENTRIES


def test_a_sweep_keeps_delayed_tickets_behind_the_others():
    delayed, kept = queued_ticket(), queued_ticket()
    queue = queue_of(delayed, kept)
    delayed.delayed = True
    assert queue.head() is kept
    for _ in range(2 * SLACK_ENTRIES):
        ticket = queued_ticket()
        queue.append(ticket)
        leave(queue, ticket)
    assert queue.head() is kept
    leave(queue, kept)
    assert queue.head() is delayed
