import pytest

from scheduler.core.ticket import TicketState
from tests.unit.core.build import make_ticket


@pytest.mark.parametrize("state", TicketState)
def test_a_ticket_waits_while_it_is_queued_or_to_be_tried_again(state):
    ticket = make_ticket()
    ticket.state = state
    assert ticket.waiting == (state in (TicketState.QUEUED, TicketState.RETRYING))


def test_tickets_are_told_apart_by_identity():
    assert make_ticket(ticket_id=1) != make_ticket(ticket_id=1)


def test_latency_is_told_by_the_merge_key_and_else_by_the_join_key():
    assert make_ticket(merge_key="m", join_key="j").latency_key == "m"
    assert make_ticket(join_key="j").latency_key == "j"
    assert make_ticket().latency_key is None


def test_what_is_said_of_its_latency_is_kept():
    assert make_ticket(merge_key="m", join_key="j", latency_key="l").latency_key == "l"
