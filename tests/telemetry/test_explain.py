"""Literal journeys, and what is said of them."""

from typing import Any

import pytest

from scheduler.core.outcome import Outcome, Verdict
from scheduler.telemetry.explain import explain
from tests.telemetry.conftest import Told


def said(told: Told, name: str = "slow") -> dict[str, Any]:
    return explain(told.journey(name), told.recorder.journal)


def test_queue_is_named_with_those_who_left_meanwhile(told: Told) -> None:
    slow = told.arrive(0.0, request_id="slow")
    flood = [told.arrive(0.0, tenant="noisy", priority_class="background") for _ in range(5)]
    told.end(0.2, told.send(0.1, *flood[:3]))
    told.end(0.4, told.send(0.2, *flood[3:]))
    told.end(1.0, told.send(0.9, slow))
    assert said(told)["largest"] == "queue"
    assert said(told)["why"] == (
        "900.0 ms of 1,000.0 ms were spent in the queue. "
        "Meanwhile 2 batches of its model left, with 5 requests: 5 of background/noisy."
    )


def test_wait_in_which_nothing_left_says_so(told: Told) -> None:
    told.end(1.0, told.send(0.9, told.arrive(0.0, request_id="slow")))
    assert "No batch of its model left meanwhile" in said(told)["why"]


def test_slow_backend_is_named_with_what_was_expected(told: Told) -> None:
    told.end(0.51, told.send(0.01, told.arrive(0.0, request_id="slow", rows=4), estimate_s=0.1))
    assert said(told)["largest"] == "backend"
    assert said(told)["why"].endswith("Expected were 100.0 ms for 4 rows; it took 500.0 ms.")


def test_failed_try_is_a_part_of_its_own(told: Told) -> None:
    slow, mate = told.arrive(0.0, request_id="slow"), told.arrive(0.0)
    told.end(0.8, told.send(0.1, slow, mate), Verdict.FAILED, retry=True)
    told.end(1.0, told.send(0.8, slow))
    assert said(told)["largest"] == "failed try"
    assert said(told)["tries"] == 2


def test_batch_that_lay_ready_is_named(told: Told) -> None:
    told.end(1.0, told.send(0.1, told.arrive(0.0, request_id="slow"), started_at=0.8))
    assert said(told)["largest"] == "ready at the backend"


def test_parts_add_up_to_the_total(told: Told) -> None:
    slow = told.arrive(0.0, request_id="slow")
    told.end(0.3, told.send(0.1, slow), Verdict.FAILED, retry=True)
    told.end(1.0, told.send(0.5, slow, started_at=0.7))
    assert sum(said(told)["parts"].values()) == pytest.approx(said(told)["total_s"]) == pytest.approx(1.0)


def test_refusal_says_why(told: Told) -> None:
    told.refuse(0.0, told.arrive(0.0, request_id="slow"), Outcome.TENANT_QUEUE_FULL)
    assert said(told)["why"] == "Refused on arrival: tenant queue full."
    assert said(told)["timeline"][-1]["what"] == "tenant queue full, told to come again after 1.0 s"


def test_first_response_of_a_stream_stands_in_the_timeline(told: Told) -> None:
    slow = told.arrive(0.0, request_id="slow")
    batch = told.send(0.1, slow)
    told.recorder.first_response(slow, now=0.4)
    told.end(1.0, batch)
    assert {"after_s": 0.4, "what": "its first response came"} in said(told)["timeline"]


def test_timeline_is_in_order_and_names_the_riders(told: Told) -> None:
    slow = told.arrive(0.0, request_id="slow", deadline=2.0)
    told.end(1.0, told.send(0.1, slow, told.arrive(0.0, tenant="other")))
    steps = said(told)["timeline"]
    assert [step["after_s"] for step in steps] == sorted(step["after_s"] for step in steps)
    assert "with 1 other request, 2 rows" in steps[2]["what"]
    assert said(told)["batch"]["mates"] == [{"class": "interactive", "tenant": "other", "requests": 1}]
