"""From outcomes to statuses, without a server."""

from __future__ import annotations

import base64

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from scheduler.core.outcome import FINAL, Outcome
from scheduler.core.ticket import Ticket
from scheduler.driver import Refused
from scheduler.edge import status
from scheduler.errors import invalid

TICKET = Ticket(1, "interactive", "acme", "minilm")
# Nobody waits for the status of these, or it is the backend's own.
NOT_REFUSED = {Outcome.CANCELLED, Outcome.COMPLETED, Outcome.FAILED}


def ended(outcome: Outcome, pushback_s: float | None = None, detail: str = "") -> tuple[status.Status, dict[str, str]]:
    of = status.of_refusal(Refused(TICKET, outcome, pushback_s, detail))
    return of, {key: value for key, value in of.trailers if isinstance(value, str)}


def test_every_outcome_of_a_refusal_has_a_status_and_no_other() -> None:
    assert set(status.CODES) == set(status.MESSAGES) == set(Outcome) - NOT_REFUSED


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.RATE_LIMITED, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Outcome.DISPLACED, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (Outcome.TOO_LARGE, grpc.StatusCode.INVALID_ARGUMENT),
        (Outcome.DEADLINE_INFEASIBLE, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_outcomes_have_the_codes_that_clients_act_on(outcome: Outcome, code: grpc.StatusCode) -> None:
    of, trailers = ended(outcome)
    assert of.code is code
    assert trailers["fairlane-reason"] == outcome.name


@pytest.mark.parametrize("outcome", sorted(FINAL - {Outcome.TOO_LARGE}, key=lambda each: each.name))
def test_a_deadline_that_cannot_be_met_asks_nobody_to_come_again(outcome: Outcome) -> None:
    assert ended(outcome)[1]["grpc-retry-pushback-ms"] == "-1"


def test_what_can_never_fit_says_so_in_words_and_names_no_time() -> None:
    of, trailers = ended(Outcome.TOO_LARGE, detail="9 rows can never fit into the 4 that its tenant may have in flight")
    assert of.message == (
        "the request is too large: 9 rows can never fit into the 4 that its tenant may have in flight: "
        "class interactive, tenant acme, model minilm"
    )
    assert "grpc-retry-pushback-ms" not in trailers


@pytest.mark.parametrize(("pushback_s", "ms"), [(0.2501, "251"), (0.25, "250"), (1e-9, "1")])
def test_a_time_is_rounded_up_so_that_nobody_comes_too_early(pushback_s: float, ms: str) -> None:
    assert ended(Outcome.RATE_LIMITED, pushback_s)[1]["grpc-retry-pushback-ms"] == ms


@pytest.mark.parametrize("pushback_s", [None, 0.25, 12.5])
def test_details_tell_the_same_as_the_trailers(pushback_s: float | None) -> None:
    of, _ = ended(Outcome.QUEUE_FULL, pushback_s)
    details = status_pb2.Status.FromString(dict(of.trailers)["grpc-status-details-bin"])
    assert (details.code, details.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], of.message)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert details.details[0].Unpack(info)
    assert (info.reason, info.metadata["tenant"]) == ("QUEUE_FULL", "acme")
    assert len(details.details) == (1 if pushback_s is None else 2)
    if pushback_s is not None:
        assert details.details[1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == pushback_s * 1000


def test_what_is_told_twice_is_told_of_each_one_that_asks() -> None:
    for tenant in ("acme", "other", "acme"):
        ticket = Ticket(1, "interactive", tenant, "minilm")
        assert f"tenant {tenant}," in status.of_refusal(Refused(ticket, Outcome.QUEUE_FULL, 1.0)).message


def test_pushback_is_a_day_at_most_whatever_the_rate() -> None:
    _, trailers = ended(Outcome.RATE_LIMITED, 1e300)
    assert trailers["grpc-retry-pushback-ms"] == "86400000"


@pytest.mark.parametrize("character", ["x", "%", "\n", "\u00e9", "\u4e2d", "\U0001f600"])
def test_message_of_any_language_is_cut_to_what_headers_carry(character: str) -> None:
    of = status.of_request_error(invalid(character * 5000))
    headers = 3 * len(of.message.encode()) if character != "x" else len(of.message)
    details = dict(of.trailers)["grpc-status-details-bin"]
    assert headers + len(base64.b64encode(bytes(details))) < 6144  # type: ignore[arg-type]
    assert len(of.message) == min(1024, 1024 // len(character.encode()))
