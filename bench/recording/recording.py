"""What one generator process measured: counts and HDR histograms by the second, not single samples.

Memory is bounded by the length of the run, not by its requests. A bin is about a second, so that a recording can be
drawn over time and resampled (bench/measuring/estimate.py).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from bench.recording.histogram import Columns, new_histogram, record_s
from bench.recording.outcome import TURNED_AWAY, Outcome

# By the second in which the request was due.
DUE_COUNTS: Final = ("arrived", "sent_in_time", "no_pushback", *(str(outcome) for outcome in Outcome))
# By the second in which the answer came, within the run: throughput, and throughput within the deadline.
DONE_COUNTS: Final = ("done_ok", "done_in_time", "done_turned_away")
HISTOGRAMS: Final = ("latency", "refusal", "lateness")


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """One stream of one phase of one round.

    Attributes:
        duration_s: length of the run without its grace.
        counts: DUE_COUNTS and DONE_COUNTS, each of shape [bins].
        latency: from the due time to the answer, of all that were not refused and did not fail; what is unanswered or
            unsent is in it with its age at the end, so a growing queue cannot look good.
        refusal: from sending to the no, of those turned away.
        lateness: from the due time to sending: the generator's own.
        cpu_s: CPU time of the generator process.
        errors: count by status code of what did not end well.
        first_error: code and message of the first of these.
    """

    duration_s: float
    counts: dict[str, NDArray[np.int64]]
    latency: Columns
    refusal: Columns
    lateness: Columns
    cpu_s: float
    errors: dict[str, int]
    first_error: str

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.counts["arrived"])

    @classmethod
    def load(cls, path: Path) -> "Recording":
        """Read what `Recorder.save` wrote."""
        facts = json.loads(path.read_text())
        counts = {name: np.array(column, np.int64) for name, column in facts.pop("counts").items()}
        facts |= {name: Columns.decode(facts[name]) for name in HISTOGRAMS}
        return cls(counts=counts, **facts)


@dataclass
class Outstanding:
    """A request that has not ended."""

    due_s: float
    deadline_ms: float | None
    sent_s: float | None = None


@dataclass
class Recorder:
    """Books requests as they come and end. Times are seconds from the start of the run.

    Args:
        duration_s: length of the run.
        deadline_ms: of each request that has none of its own; None: every answer is in time.
    """

    duration_s: float
    deadline_ms: float | None = None
    errors: dict[str, int] = field(default_factory=dict)
    first_error: str = ""

    def __post_init__(self) -> None:
        self.bins = max(1, round(self.duration_s))
        self.counts = {name: [0] * self.bins for name in (*DUE_COUNTS, *DONE_COUNTS)}
        self._histograms: dict[str, list[HdrHistogram | None]] = {name: [None] * self.bins for name in HISTOGRAMS}
        self._outstanding: dict[int, Outstanding] = {}
        self._arrived = 0

    def arrive(self, due_s: float) -> int:
        """Book an arrival as unsent; returns its number."""
        self._arrived += 1
        self._outstanding[self._arrived] = Outstanding(due_s, self.deadline_ms)
        self.counts["arrived"][self._bin(due_s)] += 1
        return self._arrived

    def send(self, number: int, now_s: float, deadline_ms: float | None = None) -> None:
        """It was sent, and is unanswered until `finish`; with a deadline of its own where one is given."""
        request = self._outstanding[number]
        request.sent_s = now_s
        if deadline_ms is not None:
            request.deadline_ms = deadline_ms
        self._record("lateness", request.due_s, now_s - request.due_s)
        if now_s <= self.duration_s:
            self.counts["sent_in_time"][self._bin(request.due_s)] += 1

    def finish(self, number: int, now_s: float, outcome: Outcome, *, pushback: bool = False) -> None:
        """Its answer came."""
        request = self._outstanding.pop(number)
        assert request.sent_s is not None, "finish() before send()"
        place = self._bin(request.due_s)
        self.counts[outcome][place] += 1
        if outcome in TURNED_AWAY:
            self._record("refusal", request.due_s, now_s - request.sent_s)
            self.counts["no_pushback"][place] += outcome is Outcome.REFUSED and not pushback
        elif outcome is not Outcome.ERROR:
            self._record("latency", request.due_s, now_s - request.due_s)
        if now_s <= self.duration_s:
            late = request.deadline_ms is not None and (now_s - request.due_s) * 1e3 > request.deadline_ms
            self._done(self._bin(now_s), outcome, late=late)

    def failed(self, code: str, details: str | None) -> None:
        """Count a status code, and keep the first message."""
        self.errors[code] = self.errors.get(code, 0) + 1
        self.first_error = self.first_error or f"{code}: {details}"

    def save(self, path: Path, *, end_s: float, cpu_s: float) -> None:
        """Book what is still outstanding with its age at `end_s`, and write everything as JSON."""
        self._censor(end_s)
        encoded = {
            name: [one.encode().decode() if one else "" for one in column] for name, column in self._histograms.items()
        }
        facts: dict[str, Any] = {"duration_s": self.duration_s, "cpu_s": cpu_s, "counts": self.counts, **encoded}
        facts |= {"errors": self.errors, "first_error": self.first_error}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts))

    def _done(self, place: int, outcome: Outcome, *, late: bool) -> None:
        if outcome is Outcome.OK:
            self.counts["done_ok"][place] += 1
            self.counts["done_in_time"][place] += not late
        self.counts["done_turned_away"][place] += outcome in TURNED_AWAY

    def _censor(self, end_s: float) -> None:
        for request in self._outstanding.values():
            outcome = Outcome.UNSENT if request.sent_s is None else Outcome.UNANSWERED
            self.counts[outcome][self._bin(request.due_s)] += 1
            self._record("latency", request.due_s, end_s - request.due_s)
            if request.sent_s is None:
                self._record("lateness", request.due_s, end_s - request.due_s)
        self._outstanding.clear()

    def _record(self, name: str, due_s: float, value_s: float) -> None:
        column, place = self._histograms[name], self._bin(due_s)
        if (histogram := column[place]) is None:
            histogram = column[place] = new_histogram()
        record_s(histogram, value_s)

    def _bin(self, at_s: float) -> int:
        return min(self.bins - 1, max(0, int(at_s / self.duration_s * self.bins)))
