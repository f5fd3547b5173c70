"""Rates and percentiles of the last seconds: once a second the counts are copied, and two copies are subtracted."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from scheduler.core.outcome import Outcome
from scheduler.telemetry.histogram import SECONDS, percentile
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.process import ProcessWatch
from scheduler.telemetry.tenants import REFUSALS

# Percentiles of the last minute need that many copies.
LONGEST_S: Final = 60
_NONE: Final = (0,) * (len(SECONDS) + 1)


@dataclass(slots=True)
class ClassCounts:
    """Of one class over all models, since the start. Latencies are those of completed requests."""

    total: list[int] = field(default_factory=lambda: list(_NONE))
    waited: list[int] = field(default_factory=lambda: list(_NONE))
    completed: int = 0
    refused: int = 0


@dataclass(slots=True)
class ModelCounts:
    """Of one model over all backends, since the start."""

    batches: int = 0
    requests: int = 0
    rows: float = 0.0
    service_s: float = 0.0


@dataclass(slots=True)
class Copy:
    """The counts at one time (monotonic seconds)."""

    at: float
    cpu_s: float
    gc_s: float
    lag: list[int]
    classes: dict[str, ClassCounts] = field(default_factory=dict)
    models: dict[str, ModelCounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClassRates:
    """One class over a window. Percentiles in seconds; None where nothing completed."""

    completed_per_s: float
    refused_per_s: float
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None
    wait_p99_s: float | None


@dataclass(frozen=True, slots=True)
class ModelRates:
    """One model over a window; means are None where no batch came back."""

    batches_per_s: float
    rows_per_batch: float | None
    requests_per_batch: float | None
    batch_s: float | None


@dataclass(frozen=True, slots=True)
class ProcessRates:
    """The process over a window: parts of one core, and seconds."""

    cpu: float
    cpu_per_request_s: float | None
    gc: float
    loop_lag_p99_s: float | None


class Window:
    """The last minute, second by second."""

    def __init__(self, measures: Measures, process: ProcessWatch, now: float) -> None:
        self._measures = measures
        self._process = process
        self._copies = deque([self._copy(now)], maxlen=LONGEST_S + 1)

    def sample(self, now: float) -> None:
        """Copy the counts; once a second."""
        self._copies.append(self._copy(now))

    def of_class(self, name: str, seconds: int) -> ClassRates:
        """A class over the last so many seconds."""
        old, new = self._ends(seconds)
        before = old.classes.get(name) or ClassCounts()
        after = new.classes.get(name) or ClassCounts()
        span = max(1e-3, new.at - old.at)
        total = _difference(after.total, before.total)
        return ClassRates(
            completed_per_s=(after.completed - before.completed) / span,
            refused_per_s=(after.refused - before.refused) / span,
            p50_s=percentile(SECONDS, total, 0.5),
            p90_s=percentile(SECONDS, total, 0.9),
            p99_s=percentile(SECONDS, total, 0.99),
            wait_p99_s=percentile(SECONDS, _difference(after.waited, before.waited), 0.99),
        )

    def of_model(self, name: str, seconds: int) -> ModelRates:
        """A model over the last so many seconds."""
        old, new = self._ends(seconds)
        before = old.models.get(name) or ModelCounts()
        after = new.models.get(name) or ModelCounts()
        batches = after.batches - before.batches
        return ModelRates(
            batches_per_s=batches / max(1e-3, new.at - old.at),
            rows_per_batch=(after.rows - before.rows) / batches if batches else None,
            requests_per_batch=(after.requests - before.requests) / batches if batches else None,
            batch_s=(after.service_s - before.service_s) / batches if batches else None,
        )

    def of_process(self, seconds: int) -> ProcessRates:
        """The process over the last so many seconds."""
        old, new = self._ends(seconds)
        span = max(1e-3, new.at - old.at)
        requests = _ended(new) - _ended(old)
        return ProcessRates(
            cpu=(new.cpu_s - old.cpu_s) / span,
            cpu_per_request_s=(new.cpu_s - old.cpu_s) / requests if requests else None,
            gc=(new.gc_s - old.gc_s) / span,
            loop_lag_p99_s=percentile(SECONDS, _difference(new.lag, old.lag), 0.99),
        )

    def _ends(self, seconds: int) -> tuple[Copy, Copy]:
        return self._copies[max(0, len(self._copies) - 1 - seconds)], self._copies[-1]

    def _copy(self, now: float) -> Copy:
        process = self._process
        copy = Copy(now, process.cpu_s(), process.gc_pause.total, list(process.loop_lag.counts))
        for (name, _, outcome), series in self._measures.requests.items():
            counts = copy.classes.setdefault(name, ClassCounts())
            if outcome is Outcome.COMPLETED:
                counts.total = [a + b for a, b in zip(counts.total, series.total.counts, strict=True)]
                counts.waited = [a + b for a, b in zip(counts.waited, series.waited.counts, strict=True)]
                counts.completed += series.total.count
            elif outcome in REFUSALS:
                counts.refused += series.total.count
        for model, batches in self._measures.of_model():
            total = copy.models.setdefault(model, ModelCounts())
            total.batches += batches.verdicts.total()
            total.requests += batches.requests
            total.rows += batches.rows.total
            total.service_s += batches.service.total
        return copy


def _difference(after: Sequence[int], before: Sequence[int]) -> list[int]:
    return [new - old for new, old in zip(after, before, strict=True)]


def _ended(copy: Copy) -> int:
    return sum(counts.completed + counts.refused for counts in copy.classes.values())
