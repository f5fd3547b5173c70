import pytest

from scheduler.core.queues.lane import Lane
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket, TicketState
from tests.unit.core.build import BACKGROUND, INTERACTIVE, class_settings, make_ticket, tenant_settings

RANKS = {"interactive": 0, "background": 1}


@pytest.fixture
def lane() -> Lane:
    return Lane("m", (INTERACTIVE, BACKGROUND))


def push(lane: Lane, tenant: Tenant, priority_class: str = "interactive") -> Ticket:
    ticket = make_ticket(priority_class, tenant.name)
    lane.push(ticket, RANKS[priority_class], tenant)
    return ticket


def serve(lane: Lane, cost_s: float = 1.0) -> Ticket | None:
    turn = lane.next_turn()
    if turn is None:
        return None
    lane.virtual.serve(turn.queue, cost_s)
    if turn.flow is None:
        turn.queue.retries.popleft()
    else:
        turn.queue.take(turn.flow, turn.ticket, cost_s, chosen=True)
    return turn.ticket


def classes_served(lane: Lane, turns: int) -> list[str]:
    return [serve(lane).priority_class for _ in range(turns)]


def test_an_empty_lane_has_no_turn(lane):
    assert lane.next_turn() is None
    assert list(lane.waiting()) == []


def test_classes_share_by_weight_and_background_trickles(lane, acme):
    for _ in range(200):
        push(lane, acme, "background")
        push(lane, acme)
    served = classes_served(lane, 170)
    assert served.count("background") == 10
    assert served[0] == "interactive"


def test_a_tie_goes_to_the_more_important_class(lane, acme):
    push(lane, acme, "background")
    push(lane, acme)
    assert classes_served(lane, 1) == ["interactive"]


def test_an_idle_class_gets_no_credit(lane, acme):
    for _ in range(200):
        push(lane, acme)
    classes_served(lane, 100)
    for _ in range(50):
        push(lane, acme, "background")
    assert classes_served(lane, 34).count("background") == 2


def test_a_class_whose_tenants_were_all_capped_gets_no_credit_for_that_time(lane, acme):
    capped = Tenant("capped", tenant_settings(max_in_flight=0))
    for _ in range(50):
        push(lane, capped, "background")
        push(lane, acme)
        push(lane, acme)
    assert classes_served(lane, 50).count("background") == 0
    assert lane.classes[1].blocked
    capped.held.most_tickets = 1000
    for flow in capped.unblocked():
        flow.unpark()
    assert classes_served(lane, 34).count("background") == 2
    assert not lane.classes[1].blocked


def test_a_class_is_blocked_while_all_that_waits_in_it_is_at_a_cap_and_not_while_nothing_waits(lane):
    push(lane, Tenant("capped", tenant_settings(max_in_flight=0)), "background")
    assert lane.next_turn() is None
    assert [queue.blocked for queue in lane.classes] == [False, True]


def test_after_the_lane_was_empty_nobody_owes_anything(lane, acme):
    push(lane, acme, "background")
    serve(lane, cost_s=100.0)
    push(lane, acme)
    serve(lane)
    push(lane, acme, "background")
    push(lane, acme)
    assert lane.classes[0].start == lane.classes[1].start == lane.virtual.now == 100.0625


def test_a_retry_goes_first_within_its_class(lane, acme):
    push(lane, acme)
    retry = make_ticket()
    lane.retry(retry, 0)
    assert retry.state is TicketState.RETRYING
    assert serve(lane) is retry


def test_retries_of_a_lesser_class_wait_for_its_turn_and_get_it(lane, acme):
    for _ in range(40):
        push(lane, acme)
    for _ in range(8):
        lane.retry(make_ticket("background"), 1)
    assert classes_served(lane, 34).count("background") == 2


def test_a_retry_that_has_ended_gets_no_turn(lane):
    ended, retry = make_ticket(), make_ticket()
    lane.retry(ended, 0)
    lane.retry(retry, 0)
    ended.state = TicketState.ENDED
    assert list(lane.waiting()) == [retry]
    assert serve(lane) is retry
    assert lane.next_turn() is None


def test_waiting_lists_every_class(lane, acme):
    background, interactive = push(lane, acme, "background"), push(lane, acme)
    assert list(lane.waiting()) == [interactive, background]


def test_a_strict_class_goes_before_all_others_and_those_share_what_is_left(acme):
    classes = (class_settings("interactive", strict=True), BACKGROUND, class_settings("idle", 3))
    lane = Lane("m", classes)
    for _ in range(40):
        for rank, settings in enumerate(classes):
            lane.push(make_ticket(settings.name), rank, acme)
    assert classes_served(lane, 20) == ["interactive"] * 20
    for _ in range(5):
        lane.push(make_ticket("interactive"), 0, acme)
    assert classes_served(lane, 25) == ["interactive"] * 25
    assert classes_served(lane, 40).count("idle") == 30
    lane.push(make_ticket("interactive"), 0, acme)
    assert classes_served(lane, 1) == ["interactive"]


def test_of_two_strict_classes_the_more_important_goes_first(acme):
    classes = (class_settings("a", strict=True), class_settings("b", strict=True))
    lane = Lane("m", classes)
    for rank in (1, 0, 1, 0):
        lane.push(make_ticket(classes[rank].name), rank, acme)
    assert classes_served(lane, 4) == ["a", "a", "b", "b"]


def test_new_settings_hold_from_now_on_and_give_no_credit(lane, acme):
    for _ in range(6):
        push(lane, acme)
        push(lane, acme, "background")
    assert classes_served(lane, 4) == ["interactive", "background", "interactive", "interactive"]
    lane.reconfigure((class_settings("interactive", 1), class_settings("background", 1)))
    assert lane.classes[0].weight == 1
    assert lane.classes[1].start >= lane.virtual.now


def test_a_class_is_overtaken_by_the_tightest_wait_above_it():
    lane = Lane("m", [class_settings("a", wait_s=0.2), class_settings("b", wait_s=0.05), class_settings("c")])
    assert [queue.above_wait_s for queue in lane.classes] == [None, 0.2, 0.05]
    lane.reconfigure([class_settings("a"), class_settings("b", wait_s=0.1), class_settings("c", wait_s=0.01)])
    assert [queue.above_wait_s for queue in lane.classes] == [None, None, 0.1]


def test_v_follows_the_rides_of_those_that_wait_while_a_strict_class_has_the_turns(acme):
    lane = Lane("m", (class_settings("interactive", strict=True), class_settings("normal"), BACKGROUND))
    strict, normal, background = lane.classes
    lane.follow()
    assert lane.virtual.now == 0.0
    for rank, queue in enumerate(lane.classes):
        lane.push(make_ticket(queue.settings.name), rank, acme)
    normal.start, background.start = 7.0, 5.0
    lane.follow()
    assert (lane.virtual.now, strict.start) == (5.0, 0.0)
    background.blocked = True
    lane.follow()
    assert lane.virtual.now == 7.0
    normal.start = 6.0
    lane.follow()
    assert lane.virtual.now == 7.0


class TestPresentWait:
    """How long the classes above would have to wait, as they are in use now."""

    @staticmethod
    def lane():
        return Lane("m", (class_settings("a", wait_s=0.02), class_settings("b", wait_s=0.05), class_settings("c")))

    def waits(self, lane, now):
        lane.pass_time(now=now)
        return [queue.present_wait_s for queue in lane.classes]

    def test_until_time_passes_all_count_as_in_use(self):
        assert [queue.present_wait_s for queue in self.lane().classes] == [None, 0.02, 0.02]

    def test_a_class_that_was_never_used_bounds_nothing(self):
        lane = self.lane()
        assert self.waits(lane, 1.0) == [None, None, None]
        lane.heard(1, 1, now=1.0)
        assert self.waits(lane, 2.0) == [None, None, 0.05]

    def test_after_two_seconds_of_silence_a_tenth_of_it_is_allowed(self):
        lane = self.lane()
        lane.heard(0, 1, now=1.0)
        assert self.waits(lane, 3.0)[1] == 0.02
        assert self.waits(lane, 4.0)[1] == pytest.approx(0.3)
        lane.heard(1, 1, now=4.0)
        assert self.waits(lane, 4.0) == [None, pytest.approx(0.3), 0.05]
        lane.heard(0, 1, now=4.0)
        assert self.waits(lane, 4.0) == [None, 0.02, 0.02]

    def test_one_that_waits_is_in_use(self):
        lane = self.lane()
        lane.heard(0, 1, now=1.0)
        lane.push(make_ticket("a"), 0, Tenant("acme", tenant_settings()))
        assert self.waits(lane, 9.0)[1] == 0.02


def test_only_classes_above_a_rank_may_be_asked_for(lane):
    acme = Tenant("acme", tenant_settings())
    push(lane, acme, "background")
    assert lane.next_turn(1) is None
    ticket = push(lane, acme)
    assert lane.next_turn(1).ticket is ticket
    assert lane.next_turn(0) is None


def test_it_is_calm_unless_a_lesser_class_waits_while_one_that_minds_is_in_use(lane):
    acme = Tenant("acme", tenant_settings())
    assert (lane.waits, lane.calm(now=1.0)) == (False, True)
    push(lane, acme, "background")
    assert (lane.waits, lane.calm(now=1.0)) == (True, True)
    lane.heard(0, 1, now=1.0)
    assert not lane.calm(now=2.0)
    assert lane.calm(now=9.0)


class TestAnswered:
    """Callers whose rows were answered may come back at once; of each class that rode in the batch."""

    @staticmethod
    def answered(lane, *tickets, row_s=0.02):
        for rows in (1, 2):
            lane.estimator.learn("k", rows, rows * row_s)
        lane.answered(tickets, RANKS, now=1.0)
        return [queue.returns.merge_key for queue in lane.classes]

    def test_each_class_hears_of_its_own(self, lane):
        background = make_ticket("background", "b", merge_key="k")
        assert self.answered(lane, background) == ["", "k"]
        assert lane.classes[1].returns.tenants == {"b"}

    def test_what_rides_alone_tells_nothing(self, lane):
        assert self.answered(lane, make_ticket()) == ["", ""]

    def test_a_model_of_microseconds_is_not_waited_for(self, lane):
        assert self.answered(lane, make_ticket(merge_key="k"), row_s=1e-6) == ["", ""]
