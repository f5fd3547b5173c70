"""What is written, and what is not."""

import json
import logging
from collections.abc import Iterator

import pytest

from scheduler.core.outcome import Outcome
from scheduler.telemetry import logs
from scheduler.telemetry.journey import Journal
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.recorder import Recorder
from scheduler.telemetry.tenants import TenantTable
from tests.telemetry.conftest import Told


@pytest.fixture
def told() -> Told:
    return Told(Recorder(Measures(TenantTable(2, 0.0)), Journal(8), logs.RequestLog()))


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("fairlane", "scheduler")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_finished_request_is_one_line_at_debug(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "debug")
    told.end(1.5, told.send(1.25, told.arrive(1.0, tenant="acme", request_id="r", rows=2)))
    (line,) = lines(capsys)
    assert line.pop("timestamp")
    assert line == {
        "event": "request",
        "level": "debug",
        "logger": "fairlane.requests",
        "id": "r",
        "class": "interactive",
        "tenant": "acme",
        "model": "m",
        "rows": 2,
        "outcome": "completed",
        "total_ms": 500.0,
        "queue_ms": 250.0,
        "backend": "gpu0",
        "batch": 1,
        "batch_rows": 2,
    }


def test_finished_request_is_no_line_at_info(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    told.end(1.5, told.send(1.25, told.arrive(1.0)))
    assert lines(capsys) == []


def test_refusals_are_sampled_and_the_untold_are_counted(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    for at in (0.0, 1.0, 2.0, 11.0):
        told.refuse(at, told.arrive(at))
    told.refuse(11.0, told.arrive(11.0), Outcome.NO_BACKEND)
    written = lines(capsys)
    assert [(line["outcome"], line["untold"]) for line in written] == [
        ("queue_full", 0),
        ("queue_full", 2),
        ("no_backend", 0),
    ]
    assert written[0]["pushback_ms"] == 1000


def test_hostile_name_cannot_forge_a_line(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "debug")
    told.refuse(0.0, told.arrive(0.0, tenant='x", "level": "critical\n{'))
    (line,) = lines(capsys)
    assert line["level"] == "debug"


def test_lines_for_people_carry_the_same_and_other_loggers_look_alike(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("console", "info")
    logging.getLogger("somebody.else").warning("careful with %s", "this")
    written = capsys.readouterr().err
    assert "careful with this" in written
    assert "somebody.else" in written


def test_what_libraries_write_of_what_peers_send_is_sampled_by_wording_and_counted() -> None:
    now = [0.0]
    sample = logs.Sample(lambda: now[0])

    def told(wording: str, *about: object) -> int | None:
        record = logging.LogRecord("grpc", logging.ERROR, "", 0, wording, about, None)
        return record.untold if sample.filter(record) else None  # type: ignore[attr-defined]

    assert [told("Invalid encoding on %s", b"\xff" * n) for n in range(100)] == [0] + 99 * [None]
    assert told("Unexpected %s", "KeyError") == 0
    now[0] = logs.SAMPLE_S
    assert told("Invalid encoding on %s", b"\xff") == 99
    assert [told(f"anything {n}") for n in range(200)].count(None) == 200 - (logs.KINDS - 2) - 1


def test_peers_that_go_while_they_are_answered_fill_no_disk(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    grpcs = logging.getLogger("grpc._cython.cygrpc")
    grpcs.error("ExecuteBatchError raised in core by servicer method [/inference.GRPCInferenceService/ModelInfer]")
    grpcs.error("Unexpected [KeyError] raised by servicer method [/inference.GRPCInferenceService/ModelInfer]")
    assert [str(line["event"])[:10] for line in lines(capsys)] == ["Unexpected"]
