import pytest

from scheduler.core.admission import feasibility
from scheduler.core.admission.feasibility import CROWDED, Outlook, crowded, feasible
from scheduler.core.latency.evidence import SEEN
from scheduler.core.queues.lane import Lane
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import Ticket
from tests.unit.core.build import class_settings, make_ticket, tenant_settings

NOW = 100.0
ONE = Outlook(NOW, NOW, 0, 1, 1)
CLASSES = (class_settings("urgent", strict=True), class_settings("interactive", 4), class_settings("background", 1))
RANKS = {settings.name: rank for rank, settings in enumerate(CLASSES)}


def learned(a: float, b: float, rows: tuple[int, ...], classes=CLASSES) -> Lane:
    """A lane of whose key `k` batches of these rows took a + b * rows seconds, just now; overloaded since long ago."""
    lane = Lane("m", classes)
    for number in range(2 * SEEN):
        size = rows[number % len(rows)]
        lane.estimator.learn("k", size, a + b * size)
        lane.evidence.learn("k", size, None, a + b * size, now=NOW)
    lane.idle_at = 0.0
    lane.evidence._by_key["k"].try_at = float("inf")  # none is tried
    return lane


@pytest.fixture
def lane(monkeypatch) -> Lane:
    """Learned: every row takes 10 ms; and the wait is taken as it looks."""
    monkeypatch.setattr(feasibility, "DOUBT", 1.0)
    return learned(0.0, 0.01, (1, 2, 4, 8))


def tenant(name: str = "acme", weight: float = 1) -> Tenant:
    return Tenant(name, tenant_settings(weight))


def push(lane: Lane, of: Tenant, rows: int, priority_class: str = "interactive", due: float = 1e6) -> Ticket:
    ticket = make_ticket(priority_class, of.name, rows=rows, merge_key="k")
    ticket.due = due
    lane.push(ticket, RANKS[priority_class], of)
    return ticket


def ends_after_s(lane: Lane, of: Tenant, outlook: Outlook = ONE, **ticket: object) -> float:
    """Seconds after NOW at which a ticket of one row, due last, is taken to end: the least feasible deadline."""
    asked = make_ticket(tenant=of.name, **{"merge_key": "k"} | ticket)
    asked.due = ticket.get("deadline", 2e6)
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        asked.deadline = NOW + middle
        if feasible(lane, lane.classes[RANKS[asked.priority_class]], of, asked, outlook, now=NOW):
            high = middle
        else:
            low = middle
    return high


def test_with_nothing_ahead_it_is_the_tickets_own_service(lane):
    assert ends_after_s(lane, tenant()) == pytest.approx(0.01)


def test_its_own_tenants_earlier_tickets_come_before_it(lane):
    acme = tenant()
    push(lane, acme, 7)
    assert ends_after_s(lane, acme) == pytest.approx(0.08)


def test_what_is_due_later_does_not(lane):
    acme = tenant()
    push(lane, acme, 7)
    asked = make_ticket(merge_key="k", deadline=NOW + 0.011)
    asked.due = asked.deadline
    assert feasible(lane, lane.classes[1], acme, asked, ONE, now=NOW)


def test_another_tenant_counts_for_its_share_and_no_more_than_it_has(lane):
    acme, large, small = tenant(), tenant("large"), tenant("small")
    push(lane, acme, 9)
    push(lane, large, 1000)
    push(lane, small, 1)
    # Ten rows of acme, ten of large beside them, one of small.
    assert ends_after_s(lane, acme) == pytest.approx(0.21)


def test_a_heavier_tenant_waits_less(lane):
    heavy = tenant("heavy", 5)
    push(lane, heavy, 9)
    push(lane, tenant("large"), 1000)
    assert ends_after_s(lane, heavy) == pytest.approx(0.12)


def test_classes_count_for_their_share_and_a_strict_one_for_all_it_has(lane):
    acme = tenant()
    push(lane, acme, 9)
    push(lane, tenant("other"), 1000, "background")
    assert ends_after_s(lane, acme) == pytest.approx(0.125)
    push(lane, tenant("other"), 30, "urgent")
    assert ends_after_s(lane, acme) == pytest.approx(0.425)
    assert ends_after_s(lane, acme, priority_class="urgent") == pytest.approx(0.02)


def test_of_two_strict_classes_only_the_more_important_counts():
    lane = learned(0.0, 0.01, (1, 2), (class_settings("a", strict=True), class_settings("b", strict=True)))
    for rank in (0, 1):
        lane.push(make_ticket(rows=10, merge_key="k"), rank, tenant("other"))
    asked = make_ticket(merge_key="k", deadline=NOW + 0.0251)
    assert feasible(lane, lane.classes[0], tenant(), asked, ONE, now=NOW)
    assert not feasible(lane, lane.classes[1], tenant(), asked, ONE, now=NOW)


def test_more_instances_and_a_later_start_count(lane):
    acme = tenant()
    push(lane, acme, 8)
    assert ends_after_s(lane, acme, Outlook(NOW + 1, NOW + 1, 0, 4, 1)) == pytest.approx(1.03)


def test_the_wait_is_doubted_and_its_own_service_is_not(lane, monkeypatch):
    monkeypatch.setattr(feasibility, "DOUBT", 1.5)
    acme = tenant()
    push(lane, acme, 8)
    assert ends_after_s(lane, acme) == pytest.approx(1.5 * 0.08 + 0.01)


def test_what_rides_beside_it_in_its_own_batch_lengthens_that_and_is_no_wait(lane):
    acme = tenant()
    push(lane, acme, 11)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 1, 8)) == pytest.approx(0.08 + 0.04)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 4, 8)) == pytest.approx(0.02 + 0.04)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 4, 8), merge_key=None) == pytest.approx(0.11 / 4 + 0.01)
    # One that fills a batch by itself has nothing beside it.
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 4, 8), rows=8) == pytest.approx(0.11 / 4 + 0.08)


def test_what_a_batch_costs_by_itself_is_counted_once_for_those_that_share_it(monkeypatch):
    """20 ms a batch and 10 ms a row: eight rows in 100 ms."""
    monkeypatch.setattr(feasibility, "DOUBT", 1.0)
    lane, acme = learned(0.02, 0.01, (1, 8)), tenant()
    push(lane, acme, 11)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 1, 8)) == pytest.approx(0.10 + 0.02 + 4 * 0.01)


def test_a_class_whose_bounds_keep_its_batches_short_waits_longer_behind_itself_and_others_behind_it(lane):
    """Rows of interactive cost 30 ms in batches of two, those of the others 10 ms in full ones."""
    acme = tenant()
    push(lane, acme, 8)
    lane.classes[1].usual = (2, 0.03)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 1, 8)) == pytest.approx(8 * 0.03 + 0.01)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 1, 8), merge_key=None) == pytest.approx(8 * 0.03 + 0.01)
    # Eight rows for background's two, and seven of background beside one of its own.
    push(lane, acme, 1, "background")
    assert ends_after_s(
        lane, acme, Outlook(NOW, NOW, 0, 1, 8), priority_class="background", merge_key=None
    ) == pytest.approx(8 * 0.03 + 0.01 + 0.01)


def test_more_beside_it_than_what_that_costs_elsewhere_is_no_wait(lane):
    push(lane, tenant(), 4, "background")
    lane.classes[1].usual, lane.classes[2].usual = (8, 0.01), (8, 0.001)
    assert ends_after_s(lane, tenant("other"), Outlook(NOW, NOW, 0, 1, 8)) <= 0.05


def test_without_a_deadline_and_for_who_is_to_be_tried_it_is_feasible(lane):
    push(lane, tenant(), 1000)
    assert feasible(lane, lane.classes[1], tenant(), make_ticket(), ONE, now=NOW)
    ticket = make_ticket(deadline=NOW)
    assert not feasible(lane, lane.classes[1], tenant(), ticket, ONE, now=NOW)
    ticket.tried = True
    assert feasible(lane, lane.classes[1], tenant(), ticket, ONE, now=NOW)


def test_while_an_instance_is_idle_for_it_everything_is_feasible(lane):
    idle = Outlook(NOW, NOW, 2, 2, 8)
    hopeless = make_ticket(merge_key="k", deadline=NOW + 0.001)
    assert feasible(lane, lane.classes[1], tenant(), hopeless, idle, now=NOW)
    push(lane, tenant(), 1)
    assert feasible(lane, lane.classes[1], tenant(), hopeless, idle, now=NOW)
    push(lane, tenant(), 1, "background")
    assert not feasible(lane, lane.classes[1], tenant(), hopeless, idle, now=NOW)


class TestCertainty:
    """Where nobody waits in its class only what is certain is refused."""

    @staticmethod
    def lane() -> Lane:
        """A row takes 10 ms, and once of late 4 ms."""
        lane = learned(0.0, 0.01, (1,))
        lane.evidence.learn("k", 1, None, 0.004, now=NOW)
        return lane

    def test_the_fastest_of_late_is_asked_for_what_runs_and_itself_and_averages_where_others_wait(self):
        lane = self.lane()
        lane.idle_at = NOW
        outlook = Outlook(NOW + 0.010, NOW + 0.004, 0, 1, 1)
        assert ends_after_s(lane, tenant(), outlook) == pytest.approx(0.004 + 0.004)
        push(lane, tenant(), 5)
        assert ends_after_s(lane, tenant(), outlook) == pytest.approx(0.010 + 5 * 0.010 + 0.010)

    def test_before_nineteen_batches_were_seen_nothing_is_certain(self):
        lane = Lane("m", CLASSES)
        for _ in range(SEEN - 1):
            lane.estimator.learn("k", 1, 0.01)
            lane.evidence.learn("k", 1, None, 0.01, now=NOW)
        lane.evidence._by_key["k"].try_at = float("inf")
        assert ends_after_s(lane, tenant()) < 1e-9
        push(lane, tenant(), 9)
        assert ends_after_s(lane, tenant()) == pytest.approx(0.1)

    def test_what_waits_in_other_classes_is_taken_at_its_fastest_too(self):
        lane = self.lane()
        push(lane, tenant(), 4, "background")
        # One row of background goes beside four of interactive's: a quarter of one.
        assert ends_after_s(lane, tenant()) == pytest.approx(0.25 * 0.004 + 0.004)

    def test_a_shape_that_was_never_seen_is_refused_for_what_is_before_it_alone(self):
        lane = self.lane()
        lane.idle_at = NOW
        push(lane, tenant(), 5)
        assert ends_after_s(lane, tenant(), merge_key="new") == pytest.approx(5 * 0.004)

    def test_one_in_a_while_that_would_be_refused_for_its_own_length_is_tried(self):
        lane = self.lane()
        lane.evidence._by_key["k"].try_at = NOW
        tried, refused = (make_ticket(merge_key="k", deadline=NOW + 0.003) for _ in range(2))
        assert feasible(lane, lane.classes[1], tenant(), tried, ONE, now=NOW)
        assert not feasible(lane, lane.classes[1], tenant(), refused, ONE, now=NOW)
        assert [tried.tried, refused.tried] == [True, False]

    def test_none_that_could_not_even_start_is_tried(self):
        lane = self.lane()
        lane.evidence._by_key["k"].try_at = NOW
        ticket = make_ticket(merge_key="k", deadline=NOW + 0.003)
        late = Outlook(NOW + 0.1, NOW + 0.004, 0, 1, 1)
        assert not feasible(lane, lane.classes[1], tenant(), ticket, late, now=NOW)
        assert not ticket.tried

    def test_where_others_wait_one_in_a_while_is_tried_as_well(self):
        lane = self.lane()
        push(lane, tenant(), 1)
        lane.evidence._by_key["k"].try_at = NOW
        other = tenant("other", 1e6)
        tried, refused = (make_ticket(tenant="other", merge_key="k", deadline=NOW + 0.009) for _ in range(2))
        assert feasible(lane, lane.classes[1], other, tried, ONE, now=NOW)
        assert not feasible(lane, lane.classes[1], other, refused, ONE, now=NOW)
        assert [tried.tried, refused.tried] == [True, False]


def test_it_is_crowded_when_nobody_has_found_an_instance_idle_for_twenty_batches(lane):
    lane.idle_at = NOW
    took_s = lane.estimator.line(None).batch_s
    assert not crowded(lane, now=NOW + CROWDED * took_s - 0.001)
    assert crowded(lane, now=NOW + CROWDED * took_s + 0.001)
    assert not crowded(Lane("m", CLASSES), now=NOW)


def test_two_instances_halve_the_wait_and_not_the_tickets_own_service(lane):
    acme = tenant()
    push(lane, acme, 8)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 2, 1)) == pytest.approx(0.04 + 0.01)
    push(lane, tenant("large"), 1000)
    assert ends_after_s(lane, acme, Outlook(NOW, NOW, 0, 2, 1)) == pytest.approx(0.085 + 0.01)


def test_a_ticket_is_taken_to_last_as_long_as_others_of_its_key_do(lane):
    for rows in (1, 2) * SEEN:
        lane.estimator.learn("long", rows, 0.07 * rows)
        lane.evidence.learn("long", rows, None, 0.07 * rows, now=NOW)
    lane.evidence._by_key["long"].try_at = float("inf")
    assert ends_after_s(lane, tenant(), merge_key="long") == pytest.approx(0.07)


def test_rows_of_every_class_that_comes_before_are_counted_where_batches_are_large(lane):
    push(lane, tenant("a"), 40, "urgent")
    push(lane, tenant("b"), 4, "interactive")
    push(lane, tenant("c"), 1, "background")
    eight = Outlook(NOW, NOW, 0, 1, 8)
    # Forty rows in whole batches before it, and of the others no more than all five.
    assert 0.41 < ends_after_s(lane, tenant("d"), eight) <= 0.46
