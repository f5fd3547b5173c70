import pytest

from scheduler.core.admission.bounds import Admission
from scheduler.core.outcome import Outcome
from scheduler.core.rate import Rate, RateUnit, TokenBucket
from scheduler.core.settings import Cap
from scheduler.core.tenants.caps import Tenant, Tenants
from scheduler.core.ticket import QueuePolicy, Ticket, TicketState
from tests.unit.core.build import class_settings, core_settings, make_ticket, queued_ticket, tenant_settings

RANKS = {"interactive": 0, "background": 1, "idle": 2}
SETTINGS = core_settings(
    classes=(
        class_settings("interactive", max_queued=2),
        class_settings("background", max_queued=9, max_queue_bytes=80),
        class_settings("idle"),
    ),
    tenants={
        "small": tenant_settings(max_queued=1, max_queue_bytes=50),
        "rare": tenant_settings(rate_per_s=2, burst=1, max_queued=5),
        "narrow": tenant_settings(
            max_rows_in_flight=8, model_caps={"m": Cap(None, 4), "n": Cap(None, 16), "few": Cap(1, None)}
        ),
    },
    max_queued=3,
    queue_bytes=100,
)


def bucket_of_rows() -> TokenBucket:
    return TokenBucket(Rate(RateUnit.ROWS, 10, 8))


@pytest.fixture
def admission() -> Admission:
    return Admission(SETTINGS)


def tenant(name: str) -> Tenant:
    return Tenants(SETTINGS).find(name, now=0.0)


def book(admission: Admission, priority_class: str, count: int = 1, **others: object) -> list[Ticket]:
    tickets = [queued_ticket(priority_class, **others) for _ in range(count)]
    for ticket in tickets:
        admission.book(ticket, RANKS[priority_class], tenant("other"), now=0.0)
    return tickets


def refused(admission: Admission, ticket: Ticket, of: Tenant | None = None, now: float = 0.0) -> Outcome | None:
    refusal = admission.refusal(ticket, RANKS[ticket.priority_class], of or tenant(ticket.tenant), now=now)
    return None if refusal is None else refusal.outcome


def displaced(admission: Admission, ticket: Ticket) -> list[Ticket]:
    """Whom it displaces, each of them leaving when named."""
    rank, gone = RANKS[ticket.priority_class], []
    while (lesser := admission.in_the_way(ticket, rank)) is not None:
        lesser.state = TicketState.ENDED
        admission.release(lesser, RANKS[lesser.priority_class])
        gone.append(lesser)
    return gone


def test_what_is_booked_is_given_back(admission):
    (ticket,) = book(admission, "background", queue_bytes=40)
    assert (admission.queued, admission.queue_bytes) == (1, 40)
    assert (admission.by_class, admission.bytes_by_class) == ([0, 1, 0], [0, 40, 0])
    admission.release(ticket, 1)
    assert (admission.queued, admission.queue_bytes) == (0, 0)
    assert (admission.by_class, admission.bytes_by_class) == ([0, 0, 0], [0, 0, 0])


def test_a_tenant_that_was_let_in_is_known_for_it(admission):
    other = tenant("other")
    assert not other.admitted
    admission.book(queued_ticket(), 0, other, now=0.0)
    assert other.admitted


def test_an_empty_queue_refuses_nobody(admission):
    assert refused(admission, make_ticket(queue_bytes=100)) is None


def test_a_tenants_own_quota_is_named_first(admission):
    small = tenant("small")
    small.queued = 1
    book(admission, "interactive", 2)
    assert refused(admission, make_ticket(tenant="small"), small) is Outcome.TENANT_QUEUE_FULL
    assert refused(admission, make_ticket(tenant="other")) is Outcome.QUEUE_FULL


def test_a_tenants_bytes_are_bounded_to_the_last_one(admission):
    small = tenant("small")
    small.queue_bytes = 30
    assert refused(admission, make_ticket(queue_bytes=20), small) is None
    assert refused(admission, make_ticket(queue_bytes=21), small) is Outcome.TENANT_QUEUE_FULL


def test_a_full_class_refuses_its_own_and_nobody_else(admission):
    book(admission, "interactive", 2)
    assert refused(admission, make_ticket()) is Outcome.QUEUE_FULL
    assert refused(admission, make_ticket("background")) is None


def test_a_classs_bytes_are_bounded_to_the_last_one(admission):
    book(admission, "background", queue_bytes=60)
    assert refused(admission, make_ticket("background", queue_bytes=20)) is None
    assert refused(admission, make_ticket("background", queue_bytes=21)) is Outcome.QUEUE_FULL


def test_the_whole_bound_holds_over_all_classes_for_the_least_of_them(admission):
    book(admission, "interactive")
    book(admission, "idle", 2)
    assert refused(admission, make_ticket("idle")) is Outcome.QUEUE_FULL


def test_the_whole_bound_in_bytes_holds_to_the_last_one(admission):
    book(admission, "idle", queue_bytes=60)
    assert refused(admission, make_ticket("idle", queue_bytes=40)) is None
    assert refused(admission, make_ticket("idle", queue_bytes=41)) is Outcome.QUEUE_FULL


class TestRate:
    def test_beyond_its_rate_a_tenant_is_told_the_exact_time(self, admission):
        rare, ticket = tenant("rare"), make_ticket()
        admission.book(ticket, 0, rare, now=10.0)
        refusal = admission.refusal(make_ticket(), 0, rare, now=10.1)
        assert refusal.outcome is Outcome.RATE_LIMITED
        assert refusal.retry_s == pytest.approx(0.4)
        assert admission.refusal(make_ticket(), 0, rare, now=10.5) is None

    def test_a_rate_of_rows_is_told_with_the_time_of_so_many_rows(self, admission):
        of_rows = Tenant("r", tenant_settings(rate_per_s=10, burst=8, unit=RateUnit.ROWS), bucket_of_rows())
        admission.book(queued_ticket(rows=6), 0, of_rows, now=10.0, cost=6)
        refusal = admission.refusal(make_ticket(rows=4), 0, of_rows, now=10.1, cost=4)
        assert (refusal.outcome, refusal.detail) == (Outcome.RATE_LIMITED, "10 rows a second, 8 at once")
        assert refusal.retry_s == pytest.approx(0.1)
        assert admission.refusal(make_ticket(rows=3), 0, of_rows, now=10.1, cost=3) is None

    def test_only_seconds_of_service_are_settled_later(self, admission):
        of_rows = Tenant("r", tenant_settings(), bucket_of_rows())
        of_seconds = Tenant("s", tenant_settings(), TokenBucket(Rate(RateUnit.SECONDS, 1, 2)))
        first, second = queued_ticket(), queued_ticket()
        admission.book(first, 0, of_rows, now=0.0, cost=1)
        admission.book(second, 0, of_seconds, now=0.0, cost=2.0)
        assert first.charge is None
        assert of_seconds.bucket.wait_s(2, now=0.0) == 2
        second.charge.settle(0.5, now=0.0)
        assert of_seconds.bucket.wait_s(2, now=0.0) == 0.5

    def test_a_refused_ticket_takes_no_token(self, admission):
        rare = tenant("rare")
        rare.queued = 5
        for _ in range(10):
            assert refused(admission, make_ticket(), rare) is Outcome.TENANT_QUEUE_FULL
        rare.queued = 0
        assert refused(admission, make_ticket(), rare) is None


class TestTooLarge:
    @pytest.mark.parametrize(
        ("ticket", "words"),
        [
            ({"queue_bytes": 101}, "101 bytes can never fit into the 100 that all waiting requests together may queue"),
            (
                {"priority_class": "background", "queue_bytes": 81},
                "81 bytes can never fit into the 80 that its class may queue",
            ),
            (
                {"priority_class": "background", "queue_bytes": 100},
                "100 bytes can never fit into the 80 that its class may queue",
            ),
            ({"tenant": "small", "queue_bytes": 51}, "51 bytes can never fit into the 50 that its tenant may queue"),
            ({"tenant": "narrow", "rows": 5}, "5 rows can never fit into the 4 that its tenant may have in flight"),
            (
                {"tenant": "narrow", "rows": 9, "model": "n"},
                "9 rows can never fit into the 8 that its tenant may have in flight",
            ),
        ],
    )
    def test_what_can_never_fit_is_refused_for_good_and_in_words(self, admission, ticket, words):
        ticket = make_ticket(**ticket)
        refusal = admission.refusal(ticket, RANKS[ticket.priority_class], tenant(ticket.tenant), now=0.0)
        assert (refusal.outcome, refusal.retry_s, refusal.detail) == (Outcome.TOO_LARGE, None, words)

    @pytest.mark.parametrize(
        "ticket", [{"rows": 4}, {"rows": 8, "model": "n"}, {"rows": 8, "model": "few"}, {"rows": 8, "model": "other"}]
    )
    def test_what_fits_a_bound_exactly_is_not_too_large(self, admission, ticket):
        assert refused(admission, make_ticket(tenant="narrow", **ticket)) is None

    def test_what_fits_its_tenants_bytes_exactly_is_not_too_large(self, admission):
        assert refused(admission, make_ticket(tenant="small", queue_bytes=50)) is None


class TestDisplacement:
    def test_a_more_important_arrival_displaces_the_newest_of_the_least_class(self, admission):
        book(admission, "background")
        _, newest = book(admission, "idle", 2)
        arrival = make_ticket()
        assert refused(admission, arrival) is None
        assert displaced(admission, arrival) == [newest]

    def test_the_next_class_gives_way_when_the_least_has_nobody_left(self, admission):
        (background,) = book(admission, "background")
        book(admission, "interactive", 2)
        arrival = make_ticket()
        assert displaced(admission, arrival) == [background]

    def test_nobody_displaces_his_own_class_or_a_more_important_one(self, admission):
        book(admission, "interactive")
        book(admission, "background", 2)
        for priority_class in ("background", "idle"):
            arrival = make_ticket(priority_class)
            assert refused(admission, arrival) is Outcome.QUEUE_FULL
            assert displaced(admission, arrival) == []

    def test_with_room_nobody_is_displaced(self, admission):
        book(admission, "idle", 2)
        assert displaced(admission, make_ticket()) == []

    def test_with_room_for_its_last_byte_nobody_is_displaced(self, admission):
        book(admission, "idle", queue_bytes=60)
        assert displaced(admission, make_ticket(queue_bytes=40)) == []

    def test_the_class_right_below_makes_room_too(self, admission):
        book(admission, "interactive")
        book(admission, "background", 2)
        assert refused(admission, make_ticket()) is None

    def test_the_bytes_of_the_class_right_below_make_room_too_to_the_last_one(self, admission):
        book(admission, "background", queue_bytes=80)
        assert refused(admission, make_ticket(queue_bytes=100)) is None

    def test_as_many_are_displaced_as_the_bytes_need(self, admission):
        first, second = book(admission, "idle", 2, queue_bytes=50)
        assert refused(admission, make_ticket(queue_bytes=51)) is None
        assert displaced(admission, make_ticket(queue_bytes=51)) == [second, first]

    def test_where_all_lesser_ones_are_not_enough_nobody_is_displaced(self, admission):
        book(admission, "interactive", queue_bytes=60)
        book(admission, "idle", queue_bytes=30)
        assert refused(admission, make_ticket(queue_bytes=41)) is Outcome.QUEUE_FULL

    def test_an_arrival_whose_own_class_is_full_displaces_nobody(self, admission):
        book(admission, "interactive", 2)
        book(admission, "idle")
        assert refused(admission, make_ticket()) is Outcome.QUEUE_FULL


def test_what_waits_under_a_policy_is_counted_and_given_back(admission):
    policy = QueuePolicy(0, 2, None, delays=False)
    tickets = book(admission, "interactive", 2, policy=policy)
    assert admission.policies.full(tickets[0], 0)
    for ticket in tickets:
        admission.release(ticket, 0)
    assert len(admission.policies) == 0
