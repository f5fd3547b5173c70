"""OpenTelemetry spans of traced requests, exported by OTLP; needs the extra `tracing`.

With tracing off nothing of OpenTelemetry is imported.

    fairlane.request      from arrival to the end, child of the client's span
      fairlane.admission  until it was queued
      fairlane.queue      until its batch left, or until it ended in the queue
      fairlane.batch      child of the first traced rider; every traced rider's request span links to it
        fairlane.upstream the call to the backend, whose context goes along as `traceparent`

Of what callers say of a trace its id alone goes on. A batch is of several callers: the `tracestate` of one stays on its
own spans, and `baggage` is not read (docs/decisions/0023).

A request without a `traceparent` is traced by chance; one with it is traced where its sender decided so. Admission and
queue are written at the end, from the journey's times: an untraced request costs one look at its headers.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from scheduler.core.backends.backend import Batch
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.ticket import Ticket
from scheduler.telemetry.hooks import Header
from scheduler.telemetry.journey import Journey

NANOSECONDS: Final = 1_000_000_000
# Spans are exported in the background; one that cannot be delivered by then is dropped.
EXPORT_TIMEOUT_S: Final = 5
W3C_HEADERS: Final = frozenset({"traceparent", "tracestate"})


class OtlpTracer:
    """Writes the spans of the requests that are traced; times of journeys and batches are of the clock `now`."""

    def __init__(self, otlp: str, sample: float, now: Callable[[], float]) -> None:
        self._sample = sample
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON), resource=Resource.create({"service.name": "fairlane"})
        )
        self._exporter = OTLPSpanExporter(endpoint=otlp, insecure=True, timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("fairlane")
        self._propagator = TraceContextTextMapPropagator()
        self._now = now
        self._offset_ns = time.time_ns() - int(now() * NANOSECONDS)
        # All of these end with their ticket or batch, which the core bounds.
        self._requests: dict[int, Span] = {}
        self._batches: dict[int, Span] = {}
        self._upstream: dict[int, Span] = {}
        # The ticket that a batch is known by to the pool, its first -> the batch.
        self._leading: dict[int, int] = {}

    def received(self, journey: Journey, headers: Iterable[Header]) -> None:
        """Start the request's span, where it is traced."""
        carrier = {key: value for key, value in headers if key in W3C_HEADERS and isinstance(value, str)}
        if "traceparent" not in carrier and random.random() >= self._sample:  # noqa: S311 - chance, not secrets
            return
        span = self._tracer.start_span(
            "fairlane.request",
            self._propagator.extract(carrier, Context()),
            SpanKind.SERVER,
            start_time=self._ns(journey.arrived),
        )
        if span.is_recording():
            self._requests[journey.ticket.ticket_id] = span

    def dispatched(self, batch: Batch) -> None:
        """Start the batch's span where one of its riders is traced, and link it from all that are."""
        riders = [span for ticket in batch.tickets if (span := self._requests.get(ticket.ticket_id)) is not None]
        if not riders:
            return
        span = self._tracer.start_span(
            "fairlane.batch",
            set_span_in_context(riders[0], Context()),
            start_time=self._ns(batch.dispatched_at),
            attributes={
                "fairlane.batch": batch.batch_id,
                "fairlane.backend": batch.backend,
                "fairlane.model": batch.model,
                "fairlane.rows": batch.rows,
                "fairlane.requests": len(batch.tickets),
                "fairlane.estimate_s": batch.estimate_s,
            },
        )
        for rider in riders:
            rider.add_link(span.get_span_context())
        self._batches[batch.batch_id] = span
        self._leading[batch.tickets[0].ticket_id] = batch.batch_id

    def headers(self, ticket: Ticket) -> tuple[tuple[str, str], ...] | None:
        """Start the span of the call to the backend, and give what tells the backend of it."""
        batch_id = self._leading.get(ticket.ticket_id)
        if batch_id is None:
            return None
        span = self._tracer.start_span(
            "fairlane.upstream",
            set_span_in_context(self._batches[batch_id], Context()),
            SpanKind.CLIENT,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": "inference.GRPCInferenceService",
                "rpc.method": "ModelInfer",
            },
            start_time=self._ns(self._now()),
        )
        self._upstream[batch_id] = span
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span, Context()))
        return (("traceparent", carrier["traceparent"]),)

    def completed(self, batch: Batch, verdict: Verdict) -> None:
        """End the spans of the call and of the batch."""
        span = self._batches.pop(batch.batch_id, None)
        if span is None:
            return
        self._leading.pop(batch.tickets[0].ticket_id, None)
        ended = self._ns(self._now())
        for each in (self._upstream.pop(batch.batch_id, None), span):
            if each is not None:
                if verdict is not Verdict.SUCCEEDED:
                    each.set_status(Status(StatusCode.ERROR, verdict.value))
                each.end(ended)

    def ended(self, journey: Journey) -> None:
        """Write where the time went, and end the request's span."""
        ticket = journey.ticket
        span = self._requests.pop(ticket.ticket_id, None)
        if span is None or journey.ended_at is None or journey.outcome is None:
            return
        context = set_span_in_context(span, Context())
        left = journey.ended_at if journey.dispatched_at is None else journey.dispatched_at
        for name, start, end in (
            ("fairlane.admission", journey.arrived, journey.queued_at),
            ("fairlane.queue", journey.queued_at, left),
        ):
            self._tracer.start_span(name, context, start_time=self._ns(start)).end(self._ns(end))
        span.set_attributes(
            {
                "fairlane.class": ticket.priority_class,
                "fairlane.tenant": ticket.tenant,
                "fairlane.model": ticket.model,
                "fairlane.rows": ticket.rows,
                "fairlane.request_id": journey.request_id,
                "fairlane.outcome": journey.outcome.value,
                "fairlane.tries": journey.tries,
            }
        )
        if journey.outcome is not Outcome.COMPLETED:
            span.set_status(Status(StatusCode.ERROR, journey.outcome.value))
        span.end(self._ns(journey.ended_at))

    def close(self) -> None:
        """Deliver what is left; blocks for up to EXPORT_TIMEOUT_S."""
        # The provider would wait that long for each of its batches.
        enough = threading.Timer(EXPORT_TIMEOUT_S, self._exporter.shutdown)
        enough.start()
        self._provider.shutdown()
        enough.cancel()

    def _ns(self, at: float) -> int:
        return self._offset_ns + int(at * NANOSECONDS)
