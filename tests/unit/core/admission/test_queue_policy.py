from math import inf

import pytest

from scheduler.core.admission.queue_policy import SLACK_ENTRIES, PolicyQueues
from scheduler.core.ticket import QueuePolicy, Ticket, TicketState
from tests.unit.core.build import queued_ticket


def policy(max_queued: int | None = None, wait_s: float | None = None, *, level: int = 0) -> QueuePolicy:
    return QueuePolicy(level, max_queued, wait_s, delays=False)


def enter(queues: PolicyQueues, of: QueuePolicy, *, now: float = 0.0, model: str = "m") -> Ticket:
    ticket = queued_ticket(policy=of, model=model)
    queues.enter(ticket, of, now=now)
    return ticket


def leave(queues: PolicyQueues, ticket: Ticket) -> None:
    ticket.state = TicketState.IN_FLIGHT
    queues.leave(ticket, ticket.policy)


@pytest.mark.parametrize(
    ("waiting", "spare", "full"),
    [(3, 0, False), (4, 0, True), (4, 1, False), (5, 1, True), (2, -1, False), (3, -1, True)],
)
def test_as_many_wait_as_triton_lets_queue_beside_what_runs(waiting, spare, full):
    queues, of = PolicyQueues(), policy(4)
    for _ in range(waiting):
        enter(queues, of)
    assert queues.full(queued_ticket(policy=of), spare) is full


def test_the_first_of_a_model_finds_its_queue_empty():
    queues = PolicyQueues()
    assert not queues.full(queued_ticket(policy=policy(1)), 0)
    assert queues.full(queued_ticket(policy=policy(1)), -1)


def test_levels_and_models_have_queues_of_their_own():
    queues = PolicyQueues()
    enter(queues, policy(1, level=1))
    assert queues.full(queued_ticket(policy=policy(1, level=1)), 0)
    assert not queues.full(queued_ticket(policy=policy(1, level=2)), 0)
    assert not queues.full(queued_ticket(policy=policy(1, level=1), model="n"), 0)


@pytest.mark.parametrize("of", [None, policy(wait_s=1.0)])
def test_without_a_bound_no_queue_is_full(of):
    queues = PolicyQueues()
    if of is not None:
        enter(queues, of)
    assert not queues.full(queued_ticket(policy=of), -100)


def test_a_ticket_is_due_once_after_as_long_as_it_may_wait():
    queues, of = PolicyQueues(), policy(wait_s=0.5)
    first, second = enter(queues, of, now=1.0), enter(queues, of, now=1.2)
    assert queues.next_due() == 1.5
    assert queues.pop_due(now=1.4) is None
    assert queues.pop_due(now=1.6) is first
    assert queues.pop_due(now=1.6) is None
    assert queues.next_due() == 1.7
    assert queues.pop_due(now=1.7) is second
    assert queues.next_due() == inf


def test_whoever_left_is_not_due():
    queues, of = PolicyQueues(), policy(wait_s=0.5)
    gone, second, third = (enter(queues, of, now=1.0) for _ in range(3))
    leave(queues, gone)
    assert queues.pop_due(now=1.5) is second
    leave(queues, third)
    assert queues.next_due() == inf
    assert queues.pop_due(now=9.0) is None


def test_the_earliest_of_all_queues_comes_next():
    queues = PolicyQueues()
    enter(queues, policy(wait_s=3.0))
    early = enter(queues, policy(wait_s=1.0), model="n")
    enter(queues, policy(2), model="o")
    assert queues.next_due() == 1.0
    assert queues.pop_due(now=1.0) is early


def test_nothing_is_kept_of_queues_that_are_empty():
    queues = PolicyQueues()
    leave(queues, enter(queues, policy(2, 1.0)))
    assert len(queues) == 0
    assert queues.entries() == 0


def test_what_is_kept_follows_what_waits():
    queues, of = PolicyQueues(), policy(wait_s=1.0)
    enter(queues, of)
    for _ in range(1000):
        leave(queues, enter(queues, of))
        assert queues.entries() <= 2 * 2 + SLACK_ENTRIES + 1
