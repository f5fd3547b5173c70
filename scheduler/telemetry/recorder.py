"""The telemetry that listens: follows each request from arrival to its end, and hands it on once, there."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from scheduler.core.backends.backend import BackendState, Batch
from scheduler.core.events import Evict, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.ticket import Ticket
from scheduler.telemetry.hooks import Header, MergeCheck
from scheduler.telemetry.journey import ID_LENGTH, Journal, Journey
from scheduler.telemetry.measures import Measures


class Tracer(Protocol):
    """What writes spans (tracing.py)."""

    def received(self, journey: Journey, headers: Iterable[Header]) -> None:
        """A request came in with these headers."""

    def dispatched(self, batch: Batch) -> None:
        """A batch is about to leave."""

    def headers(self, ticket: Ticket) -> tuple[tuple[str, str], ...] | None:
        """The trace context of the batch in which the ticket rides."""

    def completed(self, batch: Batch, verdict: Verdict) -> None:
        """A batch has come back."""

    def ended(self, journey: Journey) -> None:
        """A request has ended."""

    def close(self) -> None:
        """Deliver what is left; may block for some seconds."""


class Log(Protocol):
    """What writes a line (logs.py)."""

    def ended(self, journey: Journey) -> None:
        """A request has ended."""


class Recorder:
    """Telemetry (hooks.py) into measures and journal, and into spans and log lines where those are on.

    Attributes:
        measures: the counts.
        journal: the last requests.
        backends: as last reported, by name.
    """

    def __init__(
        self, measures: Measures, journal: Journal, log: Log | None = None, tracer: Tracer | None = None
    ) -> None:
        self.measures = measures
        self.journal = journal
        self.backends: dict[str, BackendState] = {}
        self._log = log
        self._tracer = tracer
        # Requests that have not ended, by ticket; the core bounds them.
        self._open: dict[int, Journey] = {}

    def received(
        self, ticket: Ticket, *, request_id: str, headers: Iterable[Header], arrived: float, now: float
    ) -> None:
        """Follow the request from here."""
        journey = self._open[ticket.ticket_id] = Journey(ticket, request_id[:ID_LENGTH], arrived, now)
        if self._tracer is not None:
            self._tracer.received(journey, headers)

    def invalid(self, reason: str) -> None:
        """Count it."""
        self.measures.invalid[reason] += 1

    def refused(self, event: Reject | Evict, *, now: float) -> None:
        """End the journey, with what the client was told of coming again."""
        journey = self._open.get(event.ticket.ticket_id)
        if journey is not None:
            journey.pushback_s = event.pushback_s
            self._end(event.ticket, event.outcome, now)

    def cancelled(self, ticket: Ticket, *, now: float) -> None:
        """End the journey."""
        self._end(ticket, Outcome.CANCELLED, now)

    def dispatched(self, batch: Batch) -> None:
        """Note which batch its riders ride in."""
        for ticket in batch.tickets:
            journey = self._open.get(ticket.ticket_id)
            if journey is None:
                continue
            if journey.dispatched_at is None:
                journey.dispatched_at = batch.dispatched_at
            else:
                self.measures.retries[batch.model] += 1
            journey.batch = batch
            journey.tries += 1
        if self._tracer is not None:
            self._tracer.dispatched(batch)

    def headers(self, ticket: Ticket) -> tuple[tuple[str, str], ...] | None:
        """The trace context of the ticket's batch; None where nothing is traced."""
        return None if self._tracer is None else self._tracer.headers(ticket)

    def first_response(self, ticket: Ticket, *, now: float) -> None:
        """Count how long it took."""
        journey = self._open.get(ticket.ticket_id)
        if journey is not None:
            journey.first_response_at = now
            self.measures.first_response(journey, now)

    def completed(self, batch: Batch, verdict: Verdict, ended: Sequence[Ticket], *, now: float) -> None:
        """Count the batch, and end the journeys of the tickets that ended with it."""
        self.measures.completed(batch, verdict, now)
        if self._tracer is not None:
            self._tracer.completed(batch, verdict)
        outcome = Outcome.COMPLETED if verdict is Verdict.SUCCEEDED else Outcome.FAILED
        for ticket in ended:
            self._end(ticket, outcome, now)

    def unwanted(self, backend: str, model: str, seconds: float) -> None:
        """Count it, and the time."""
        series = self.measures.series(backend, model)
        series.unwanted += 1
        series.unwanted_s += seconds

    def backend(self, state: BackendState) -> None:
        """Remember what it offers."""
        if state.name not in self.backends:
            self.measures.added(state.name)
        self.backends[state.name] = state

    def merge_checked(self, model: str, result: MergeCheck) -> None:
        """Count it."""
        self.measures.merge_checks[model, result] += 1

    def merging(self, model: str, *, stopped: bool) -> None:
        """Remember it."""
        self.measures.merging_stopped[model] = stopped

    def removed(self, backend: str) -> None:
        """Forget it, but for what all backends together did."""
        if self.backends.pop(backend, None) is not None:
            self.measures.removed(backend)

    def close(self) -> None:
        """Deliver what is left to deliver; may block for some seconds."""
        if self._tracer is not None:
            self._tracer.close()

    def _end(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        journey = self._open.pop(ticket.ticket_id, None)
        if journey is None:
            return
        journey.ended_at = now
        journey.outcome = outcome
        self.measures.ended(journey, outcome, now)
        self.journal.append(journey)
        if self._log is not None:
            self._log.ended(journey)
        if self._tracer is not None:
            self._tracer.ended(journey)
