"""What is counted of requests and batches: the numbers behind /metrics and the live page, each kept once.

A request costs two histogram observations and a few dictionary look-ups, all at its end; a batch one set of
observations, whatever the number of its riders.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from scheduler.core.backends.backend import Batch
from scheduler.core.outcome import Outcome, Verdict
from scheduler.telemetry.histogram import RATIOS, ROWS, SECONDS, Histogram
from scheduler.telemetry.hooks import MergeCheck
from scheduler.telemetry.journey import Journey
from scheduler.telemetry.tenants import TenantTable

# Names of removed backends that are remembered.
REMOVED: Final = 1024


def _seconds() -> Histogram:
    return Histogram(SECONDS)


@dataclass(slots=True)
class RequestSeries:
    """Requests of one class, model and outcome: from arrival to the end, and the part of it spent in the queue."""

    total: Histogram = field(default_factory=_seconds)
    waited: Histogram = field(default_factory=_seconds)


@dataclass(slots=True)
class BatchSeries:
    """Batches of one model at one backend.

    Attributes:
        verdicts: batches by how they ended.
        rows: of each.
        service: seconds of each at an instance, as the core infers it.
        ratio: actual through estimated seconds, of those that succeeded.
        estimated_s: sum of the estimates of those that succeeded.
        requests: riders.
        unwanted: batches that were left to finish though nobody waited for them.
        unwanted_s: seconds that those took after the last caller had gone.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS))
    service: Histogram = field(default_factory=_seconds)
    ratio: Histogram = field(default_factory=lambda: Histogram(RATIOS))
    estimated_s: float = 0.0
    requests: int = 0
    unwanted: int = 0
    unwanted_s: float = 0.0

    def add(self, other: "BatchSeries") -> None:
        """Take in another backend's."""
        self.verdicts.update(other.verdicts)
        self.requests += other.requests
        self.estimated_s += other.estimated_s
        self.unwanted += other.unwanted
        self.unwanted_s += other.unwanted_s
        for mine, theirs in ((self.rows, other.rows), (self.service, other.service), (self.ratio, other.ratio)):
            mine.add(theirs)


class Measures:
    """Counts since the start.

    Attributes:
        requests: by (class, model, outcome).
        batches: by (backend, model).
        gone: by model, of all backends that were removed.
        backend_changes: backends that were added and removed.
        first_responses: seconds from arrival to the first response of decoupled models, by (class, model).
        invalid: requests that never became a ticket, by reason.
        retries: second tries of requests whose batch had failed, by model.
        merge_checks: merged requests that were asked again alone, by model and how that went.
        merging_stopped: by model, whether its requests ride alone since such checks differed.
        tenants: by tenant.
    """

    def __init__(self, tenants: TenantTable) -> None:
        self.requests: defaultdict[tuple[str, str, Outcome], RequestSeries] = defaultdict(RequestSeries)
        self.batches: defaultdict[tuple[str, str], BatchSeries] = defaultdict(BatchSeries)
        self.gone: defaultdict[str, BatchSeries] = defaultdict(BatchSeries)
        self.backend_changes: Counter[str] = Counter(added=0, removed=0)
        # The last backends that were removed: batches may still come back from them.
        self._removed: dict[str, None] = {}
        self.first_responses: defaultdict[tuple[str, str], Histogram] = defaultdict(_seconds)
        self.invalid: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.merge_checks: Counter[tuple[str, MergeCheck]] = Counter()
        self.merging_stopped: dict[str, bool] = {}
        self.tenants = tenants

    def ended(self, journey: Journey, outcome: Outcome, now: float) -> None:
        """Count a request that has just ended."""
        ticket = journey.ticket
        waited_s = (now if journey.dispatched_at is None else journey.dispatched_at) - journey.queued_at
        series = self.requests[ticket.priority_class, ticket.model, outcome]
        series.total.observe(now - journey.arrived)
        series.waited.observe(waited_s)
        self.tenants.ended(ticket, outcome, waited_s)

    def first_response(self, journey: Journey, now: float) -> None:
        """Count the first response to a request that goes on."""
        ticket = journey.ticket
        self.first_responses[ticket.priority_class, ticket.model].observe(now - journey.arrived)

    def of_model(self) -> Iterator[tuple[str, BatchSeries]]:
        """The batches of each model, backend by backend."""
        yield from ((model, series) for (_, model), series in self.batches.items())
        yield from self.gone.items()

    def removed(self, backend: str) -> None:
        """Count it, and keep of it what all such did together: backends may come and go without end."""
        self.backend_changes["removed"] += 1
        for key in [key for key in self.batches if key[0] == backend]:
            self.gone[key[1]].add(self.batches.pop(key))
        self._removed[backend] = None
        if len(self._removed) > REMOVED:
            del self._removed[next(iter(self._removed))]

    def added(self, backend: str) -> None:
        """Count a backend that is there, perhaps again."""
        self.backend_changes["added"] += 1
        self._removed.pop(backend, None)

    def series(self, backend: str, model: str) -> BatchSeries:
        """Of the model's batches at this backend, or at those that were removed."""
        return self.gone[model] if backend in self._removed else self.batches[backend, model]

    def completed(self, batch: Batch, verdict: Verdict, now: float) -> None:
        """Count a batch that has just come back."""
        series = self.series(batch.backend, batch.model)
        service_s = now - batch.began
        series.verdicts[verdict] += 1
        series.rows.observe(batch.rows)
        series.service.observe(service_s)
        series.requests += len(batch.tickets)
        if verdict is Verdict.SUCCEEDED:
            series.estimated_s += batch.estimate_s
            series.ratio.observe(service_s / batch.estimate_s if batch.estimate_s else 1.0)
        row_s = service_s / max(1, batch.rows, batch.run_rows)
        for ticket in batch.tickets:
            self.tenants.served(ticket, row_s * ticket.rows)
