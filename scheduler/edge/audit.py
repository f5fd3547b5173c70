"""The audit log: one JSON line for each admin action, refused access and reload. Never payloads, never keys.

JSON escapes whatever a client puts into a name, so a line is one record. Lines about refused access are
bounded per second, so that whoever is refused cannot fill the disk; what was left out is counted.
"""

import contextlib
import json
import logging
import logging.handlers
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from scheduler.errors import StartError

REFUSALS_PER_S: Final = 50
# Longer ones are no names that anybody configured.
VALUE_LENGTH: Final = 256


class Audit:
    """Writes the records.

    Args:
        path: the file, appended to, and opened anew when it was moved away; None: standard error.
        clock: seconds; for the bound per second.

    Raises:
        StartError: the file cannot be opened.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            self._handler: logging.Handler = (
                logging.StreamHandler() if path is None else logging.handlers.WatchedFileHandler(path, encoding="utf-8")
            )
        except OSError as error:
            raise StartError(f"audit_log: {path}: cannot be written: {error.strerror}") from None
        self._clock = clock
        self._second = 0
        self._refusals = 0
        self._left_out = 0

    def action(self, tenant: str, peer: str, what: str, outcome: str) -> None:
        """An admin action: `what` was done by `tenant`, and how it ended."""
        self._write("admin", tenant=tenant, peer=peer, what=what, outcome=outcome)

    def refused(self, tenant: str, peer: str, what: str, outcome: str) -> None:
        """Access was refused; `tenant` is empty where nobody known asked."""
        second = int(self._clock())
        if second != self._second:
            if self._left_out:
                self._write("refused_left_out", count=str(self._left_out))
            self._second, self._refusals, self._left_out = second, 0, 0
        self._refusals += 1
        if self._refusals > REFUSALS_PER_S:
            self._left_out += 1
            return
        self._write("refused", tenant=tenant, peer=peer, what=what, outcome=outcome)

    def reload(self, outcome: str) -> None:
        """The configuration was read again."""
        self._write("reload", outcome=outcome)

    def close(self) -> None:
        """Close the file; what a full disk did not take has been told of."""
        with contextlib.suppress(OSError):
            self._handler.close()

    def _write(self, event: str, **about: str) -> None:
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        record |= {key: value[:VALUE_LENGTH] for key, value in about.items()}
        line = json.dumps(record)
        written = logging.LogRecord("audit", logging.INFO, "", 0, line, None, None)
        try:
            # A full disk or a closed stream is reported by logging itself, and stops nothing.
            self._handler.handle(written)
        except OSError:
            # Not so a file that was moved away and cannot be opened anew.
            self._handler.handleError(written)
