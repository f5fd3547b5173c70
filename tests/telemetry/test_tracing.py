"""Spans as an OTLP receiver gets them, from a whole service."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from scheduler.telemetry import tracing
from scheduler.triton.fake import FakeTriton

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.asked = 0
        self.hangs = False

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    server = grpc.aio.server()
    receiver = Receiver()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield receiver, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Metadata of the calls that reach the backend."""
    seen: list[dict[str, str]] = []
    infer = FakeTriton.ModelInfer

    async def spy(self: Any, request: Any, context: Any) -> Any:
        seen.append(dict(context.invocation_metadata()))
        return await infer(self, request, context)

    monkeypatch.setattr(FakeTriton, "ModelInfer", spy)
    return seen


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


async def test_request_continues_the_clients_trace_into_the_backend(
    serve: Any, request_of: Any, receiver: Any, upstream: Any
) -> None:
    spans, address = receiver
    served = await serve(telemetry={"tracing": {"otlp": address, "sample": 0}})
    await served.infer(request_of([[1]], id="r"), metadata=(("traceparent", SAMPLED), ("x-tenant-id", "acme")))
    assert await served.app.stop()
    (request,) = spans.named("fairlane.request")
    (batch,) = spans.named("fairlane.batch")
    (call,) = spans.named("fairlane.upstream")
    assert request.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert upstream[0]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert call.parent_span_id == batch.span_id
    assert batch.parent_span_id == request.span_id
    for name in ("fairlane.admission", "fairlane.queue"):
        (part,) = spans.named(name)
        assert part.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= request.end_time_unix_nano
    assert attributes(request)["fairlane.tenant"] == "acme"
    assert attributes(request)["fairlane.outcome"] == "completed"


async def test_every_rider_links_to_the_batch_that_it_shared(
    serve: Any, request_of: Any, receiver: Any, eventually: Any
) -> None:
    spans, address = receiver
    served = await serve(telemetry={"tracing": {"otlp": address, "sample": 1}})
    served.triton.hold()
    # The first leaves alone: of those that arrive within one turn of the loop a single batch might be made.
    calls = [asyncio.ensure_future(served.infer(request_of([[0]])))]
    await served.triton.until(lambda triton: len(triton.in_flight) == 1)
    calls += [asyncio.ensure_future(served.infer(request_of([[n]]))) for n in range(1, 6)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    await eventually(lambda: served.app.snapshot().queued + served.app.snapshot().in_flight == 6)
    served.triton.release()
    await asyncio.gather(*calls)
    assert await served.app.stop()
    batches = {batch.span_id: attributes(batch)["fairlane.requests"] for batch in spans.named("fairlane.batch")}
    requests = spans.named("fairlane.request")
    assert len(requests) == 6
    assert sum(batches.values()) == 6
    riders = [link.span_id for request in requests for link in request.links]
    assert {batch: riders.count(batch) for batch in batches} == batches


@pytest.mark.parametrize("settings", [{}, {"sample": 1}])
async def test_of_what_callers_send_along_the_traces_id_alone_reaches_the_backend(
    serve: Any, request_of: Any, receiver: Any, upstream: Any, eventually: Any, settings: Any
) -> None:
    spans, address = receiver
    telemetry = {"tracing": settings | {"otlp": address} if settings else {}}
    # Unchecked: what Fairlane asks of its own is no caller's.
    served = await serve(telemetry=telemetry, models={"identity": {"batch_invariant": True, "check_merging": False}})
    served.triton.hold()
    names = ("ann", "bob", "cyd", "eve", "fay", "guy")  # none may come up in the hexadecimal digits of a trace's id
    calls = []
    for n, name in enumerate(names):
        metadata = (
            ("traceparent", SAMPLED),
            ("tracestate", f"vendor=state-{name}"),
            ("baggage", f"user=baggage-{name}"),
            ("cookie", f"cookie-{name}"),
            ("x-tenant-id", f"tenant-{name}"),
            ("x-request-id", f"asked-{name}"),
        )
        calls.append(asyncio.ensure_future(served.infer(request_of([[n]], id=f"id-{name}"), metadata=metadata)))
        if n == 0:  # it leaves alone, the others together
            await served.triton.until(lambda triton: len(triton.in_flight) == 1)
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    await eventually(lambda: served.app.snapshot().queued + served.app.snapshot().in_flight == len(names))
    served.triton.release()
    await asyncio.gather(*calls)
    assert await served.app.stop()
    assert len(upstream) < len(names)  # some shared a batch
    for told in upstream:
        assert told.keys() == {"user-agent", "traceparent"} if settings else {"user-agent"}
        assert not any(name in value for name in names for value in told.values())
    states = [span.trace_state for span in spans.named("fairlane.request")]
    assert sorted(states) == ([f"vendor=state-{name}" for name in names] if settings else [])
    assert "baggage" not in str(spans.spans)


async def test_trace_that_its_sender_does_not_sample_is_not_written(
    serve: Any, request_of: Any, receiver: Any, upstream: Any
) -> None:
    spans, address = receiver
    served = await serve(telemetry={"tracing": {"otlp": address, "sample": 1}})
    await served.infer(request_of([[1]]), metadata=(("traceparent", SAMPLED[:-2] + "00"),))
    await served.app.stop()
    assert spans.spans == []
    assert "traceparent" not in upstream[0]


async def test_refused_request_is_an_error_with_its_outcome(serve: Any, request_of: Any, receiver: Any) -> None:
    spans, address = receiver
    served = await serve(telemetry={"tracing": {"otlp": address, "sample": 1}}, limits={"queue_bytes": 1, "drain_s": 1})
    with pytest.raises(grpc.aio.AioRpcError):
        await served.infer(request_of([[1]]))
    await served.app.stop()
    (request,) = spans.named("fairlane.request")
    assert (request.status.code, request.status.message) == (2, "too_large")


async def test_collector_that_hangs_is_waited_for_once_at_the_end(
    told: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, address = receiver
    collector.hangs = True
    monkeypatch.setattr(tracing, "EXPORT_TIMEOUT_S", 1)
    tracer = tracing.OtlpTracer(address, 1.0, lambda: 0.0)
    for number in range(1000):  # of three spans each: more than the exporter keeps, four batches
        told.refuse(0.0, told.arrive(0.0, request_id=str(number)))
        tracer.received(told.journey(str(number)), ())
        tracer.ended(told.journey(str(number)))
    await asyncio.to_thread(tracer.close)
    assert 1 <= collector.asked <= 3  # one that was under way, one at the end, and one cut short


def test_service_without_tracing_imports_nothing_of_it() -> None:
    program = "import sys, scheduler.app; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
