"""Each request is counted once, with the times that the driver told."""

import pytest

from scheduler.core.backends.backend import BackendState
from scheduler.core.outcome import Outcome, Verdict
from scheduler.telemetry import measures as measures_module
from scheduler.telemetry.journey import ID_LENGTH
from tests.telemetry.conftest import Told


def test_request_is_counted_once_with_its_wait_and_its_total(told: Told) -> None:
    ticket = told.arrive(1.0)
    told.end(1.5, told.send(1.2, ticket))
    series = told.recorder.measures.requests["interactive", "m", Outcome.COMPLETED]
    assert (series.total.count, series.waited.count) == (1, 1)
    assert series.total.total == pytest.approx(0.5)
    assert series.waited.total == pytest.approx(0.2)
    assert told.recorder.measures.tenants.ended_counts["interactive", "t", "m", "completed"][0] == 1


def test_batch_is_counted_whatever_its_riders(told: Told) -> None:
    tickets = [told.arrive(0.0, tenant="a", rows=3), told.arrive(0.0, tenant="b", rows=1)]
    told.end(0.5, told.send(0.1, *tickets, estimate_s=0.2))
    series = told.recorder.measures.batches["gpu0", "m"]
    assert series.verdicts == {Verdict.SUCCEEDED: 1}
    assert (series.rows.total, series.requests, series.estimated_s) == (4, 2, 0.2)
    assert series.ratio.total == pytest.approx(2.0)
    service = told.recorder.measures.tenants.service_counts
    assert service["interactive", "a", "m"] == pytest.approx(0.3)
    assert service["interactive", "b", "m"] == pytest.approx(0.1)


def test_time_that_a_batch_lay_ready_is_not_service(told: Told) -> None:
    batch = told.send(0.0, told.arrive(0.0), started_at=0.4)
    told.end(0.5, batch)
    assert told.recorder.measures.batches["gpu0", "m"].service.total == pytest.approx(0.1)


def test_refused_request_ends_with_its_pushback(told: Told) -> None:
    told.refuse(0.0, told.arrive(0.0, request_id="r"))
    assert told.journey("r").outcome is Outcome.QUEUE_FULL
    assert told.journey("r").pushback_s == 1.0


def test_cancelled_request_ends_once(told: Told) -> None:
    ticket = told.arrive(0.0, request_id="r")
    batch = told.send(0.1, ticket)
    told.recorder.cancelled(ticket, now=0.2)
    told.end(0.3, batch, retry=True)
    assert told.journey("r").outcome is Outcome.CANCELLED
    assert len(told.recorder.journal) == 1


def test_second_try_is_a_retry_and_the_wait_is_that_of_the_first(told: Told) -> None:
    ticket = told.arrive(0.0, request_id="r")
    told.end(0.2, told.send(0.1, ticket), Verdict.FAILED, retry=True)
    told.end(0.4, told.send(0.3, ticket), Verdict.FAILED)
    journey = told.journey("r")
    assert (journey.outcome, journey.tries, journey.dispatched_at) == (Outcome.FAILED, 2, 0.1)
    assert told.recorder.measures.retries == {"m": 1}


def test_journal_forgets_the_oldest(told: Told) -> None:
    for number in range(9):
        told.refuse(0.0, told.arrive(0.0, request_id=str(number)))
    assert len(told.recorder.journal) == 8
    assert told.recorder.journal.find("0") is None
    assert told.recorder.journal.find("8") is not None


def test_request_without_an_id_is_found_by_its_number(told: Told) -> None:
    told.refuse(0.0, told.arrive(0.0))
    assert told.journey("#1").ticket.ticket_id == 1


def test_of_a_long_id_no_more_is_kept_than_its_beginning_and_it_is_found_by_all_of_it(told: Told) -> None:
    long = "r" * 1_000_000
    told.end(1.0, told.send(0.5, told.arrive(0.0, request_id=long)))
    assert told.journey(long).name == "r" * ID_LENGTH


def test_first_response_is_timed_from_the_arrival_and_once(told: Told) -> None:
    ticket = told.arrive(1.0, request_id="r")
    batch = told.send(1.2, ticket)
    told.recorder.first_response(ticket, now=1.25)
    told.end(2.0, batch)
    told.recorder.first_response(ticket, now=2.5)  # has ended: the caller has left
    (histogram,) = told.recorder.measures.first_responses.values()
    assert list(told.recorder.measures.first_responses) == [("interactive", "m")]
    assert (histogram.count, histogram.total) == (1, 0.25)
    assert told.journey("r").first_response_at == 1.25


def test_what_a_removed_backend_did_is_kept_together_and_its_own_counts_go(told: Told) -> None:
    recorder, measures = told.recorder, told.recorder.measures
    for name in ("gpu0", "gpu1"):
        recorder.backend(BackendState(name, True, {}))
    recorder.backend(BackendState("gpu0", False, {}))
    told.end(0.5, told.send(0.1, told.arrive(0.0)))
    late = told.send(0.6, told.arrive(0.5, rows=3))
    recorder.removed("gpu0")
    recorder.removed("gpu0")
    assert measures.backend_changes == {"added": 2, "removed": 1}
    told.end(0.9, late)
    assert not measures.batches
    assert (measures.gone["m"].requests, measures.gone["m"].rows.total) == (2, 4)
    assert measures.gone["m"].service.total == pytest.approx(0.7)
    assert [(model, each.requests) for model, each in measures.of_model()] == [("m", 2)]
    recorder.backend(BackendState("gpu0", True, {}))
    told.end(1.5, told.send(1.1, told.arrive(1.0)))
    assert measures.batches["gpu0", "m"].requests == 1
    assert measures.backend_changes["added"] == 3


def test_backends_that_come_and_go_are_not_kept_without_end(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures_module, "REMOVED", 10)
    for number in range(100):
        told.recorder.backend(BackendState(f"pool/{number}", True, {}))
        told.recorder.removed(f"pool/{number}")
    assert len(told.recorder.measures._removed) == 10
    assert told.recorder.backends == {}
