import pytest

from scheduler.core.admission import Admission
from scheduler.core.caps import Tenants
from scheduler.core.outcome import Outcome
from tests.unit.core.build import class_settings, core_settings, make_ticket, tenant_settings


@pytest.fixture
def tenants() -> Tenants:
    return Tenants(SETTINGS)


@pytest.fixture
def admission(tenants) -> Admission:
    return Admission(SETTINGS, tenants)


SETTINGS = core_settings(
    classes=(class_settings("interactive", max_queued=2), class_settings("background", max_queued=9)),
    tenants={"small": tenant_settings(max_queued=1)},
    max_queued=3,
    queue_bytes=100,
)


def book(admission: Admission, rank: int, count: int, **others: object) -> None:
    for _ in range(count):
        admission.book(make_ticket(**others), rank)


def test_what_is_booked_is_given_back(admission):
    ticket = make_ticket(queue_bytes=40)
    admission.book(ticket, 1)
    assert (admission.queued, admission.queue_bytes, admission.by_class) == (1, 40, [0, 1])
    admission.release(ticket, 1)
    assert (admission.queued, admission.queue_bytes, admission.by_class) == (0, 0, [0, 0])


def test_an_empty_queue_refuses_nobody(admission):
    assert admission.refusal(make_ticket(queue_bytes=100), 0) is None


def test_a_tenants_own_quota_is_named_first(admission, tenants):
    tenants.get("small").queued = 1
    book(admission, 0, 2)
    assert admission.refusal(make_ticket(tenant="small"), 0) is Outcome.TENANT_QUEUE_FULL
    assert admission.refusal(make_ticket(tenant="other"), 0) is Outcome.QUEUE_FULL


def test_a_full_class_refuses_its_own_and_nobody_else(admission):
    book(admission, 0, 2)
    assert admission.refusal(make_ticket(), 0) is Outcome.QUEUE_FULL
    assert admission.refusal(make_ticket("background"), 1) is None


def test_the_whole_bound_holds_over_all_classes(admission):
    book(admission, 1, 3)
    assert admission.refusal(make_ticket(), 0) is Outcome.QUEUE_FULL


def test_bytes_are_bounded_to_the_last_one(admission):
    book(admission, 1, 1, queue_bytes=60)
    assert admission.refusal(make_ticket(queue_bytes=40), 0) is None
    assert admission.refusal(make_ticket(queue_bytes=41), 0) is Outcome.QUEUE_FULL
