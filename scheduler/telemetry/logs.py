"""Structured logs on standard error: for people, or JSON a line. Never payloads.

Everything goes through the standard library's `logging`, so that libraries' lines look the same; structlog formats.
A request is a line at `debug`. From `info` on refusals are told of, sampled: the first of each class and reason, and
then at most one each SAMPLE_S seconds, with the number of those that were not told of. So are the errors that libraries
write for what peers send.
"""

import logging
import logging.config
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from scheduler.core.outcome import Outcome
from scheduler.telemetry.journey import Journey
from scheduler.telemetry.tenants import REFUSALS

SAMPLE_S: Final = 10.0
# More wordings than the libraries have; those beyond share one place.
KINDS: Final = 64
LOGGER: Final = "fairlane.requests"


def configure(style: str, level: str) -> None:
    """Send every logger's lines to standard error.

    Args:
        style: `console` or `json`.
        level: `debug`, `info` or `warning`; of Fairlane's own loggers, others' begin at `info`.
    """
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=style == "json")
    shared: list[Any] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, stamp]
    shared += [structlog.stdlib.ExtraAdder(), structlog.processors.format_exc_info]
    # JSON escapes whatever is in a text.
    render: list[Any] = [structlog.processors.JSONRenderer()]
    if style == "console":
        render = [_printable, structlog.dev.ConsoleRenderer()]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structured": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
                    "foreign_pre_chain": shared,
                }
            },
            "filters": {"peer": {"()": lambda: _of_a_peer_that_is_there}, "sample": {"()": Sample}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": "WARNING" if level == "warning" else "INFO"},
            "loggers": {name: {"level": level.upper()} for name in ("fairlane", "scheduler")}
            | {"grpc._cython.cygrpc": {"filters": ["peer", "sample"]}, "aiohttp.server": {"filters": ["sample"]}},
        }
    )


def _of_a_peer_that_is_there(record: logging.LogRecord) -> bool:
    """False for gRPC's traceback of an answer to a peer that has just gone: no error, and as many as a peer likes."""
    return "raised in core by servicer method" not in record.getMessage()


class Sample(logging.Filter):
    """Lets through the first record of a kind, and then one each SAMPLE_S seconds, with the number of those left out.

    For loggers of libraries that write a traceback for whatever a peer sends, before anybody knows who it is: header
    bytes that are no text, requests that are no HTTP. A kind is a wording and an exception's type, never what came.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        # Kind -> when the next one may be told of, and how many were not.
        self._next_at: dict[tuple[str, str], float] = {}
        self._untold: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is told of."""
        raised = record.exc_info[0] if record.exc_info else None
        kind = (str(record.msg), "" if raised is None else raised.__name__)
        if kind not in self._next_at and len(self._next_at) >= KINDS:
            kind = ("", "")
        now = self._clock()
        if now < self._next_at.get(kind, 0.0):
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return False
        self._next_at[kind] = now + SAMPLE_S
        record.untold = self._untold.pop(kind, 0)
        return True


def _printable(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
    """Texts come from clients and backends, too: nothing of them steers a terminal or looks like a line of its own."""
    del logger, method
    return {key: _escaped(value) if isinstance(value, str) else value for key, value in line.items()}


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        "\n    " if each == "\n" else each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )


class RequestLog:
    """Writes a line for each request, or for some of the refused."""

    def __init__(self) -> None:
        self._log = logging.getLogger(LOGGER)
        # (class, outcome) -> when the next one may be told of, and how many were not.
        self._next_at: dict[tuple[str, Outcome], float] = {}
        self._untold: dict[tuple[str, Outcome], int] = {}

    def ended(self, journey: Journey) -> None:
        """A request has ended."""
        if self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("request", extra=_fields(journey))
        elif journey.outcome in REFUSALS and self._log.isEnabledFor(logging.INFO):
            self._sample(journey)

    def _sample(self, journey: Journey) -> None:
        assert journey.outcome is not None
        assert journey.ended_at is not None
        key = (journey.ticket.priority_class, journey.outcome)
        if journey.ended_at < self._next_at.get(key, 0.0):
            self._untold[key] = self._untold.get(key, 0) + 1
            return
        self._next_at[key] = journey.ended_at + SAMPLE_S
        self._log.info("refused", extra=_fields(journey) | {"untold": self._untold.pop(key, 0)})


def _fields(journey: Journey) -> dict[str, Any]:
    ticket, batch = journey.ticket, journey.batch
    left = journey.dispatched_at if journey.dispatched_at is not None else journey.ended_at
    fields: dict[str, Any] = {
        "id": journey.name,
        "class": ticket.priority_class,
        "tenant": ticket.tenant,
        "model": ticket.model,
        "rows": ticket.rows,
        "outcome": "" if journey.outcome is None else journey.outcome.value,
        "total_ms": round(journey.total_s * 1000, 3),
        "queue_ms": round(((left or journey.queued_at) - journey.queued_at) * 1000, 3),
    }
    if journey.pushback_s is not None:
        fields["pushback_ms"] = round(journey.pushback_s * 1000)
    if batch is not None:
        fields |= {"backend": batch.backend, "batch": batch.batch_id, "batch_rows": batch.rows}
    return fields
