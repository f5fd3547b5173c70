"""A client's trace all the way into a real tritonserver, which writes its own spans by OpenTelemetry."""

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from aiohttp import web
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory
from tests.telemetry.test_tracing import PARENT, SAMPLED, TRACE, receiver  # noqa: F401 - fixture


@pytest.fixture
async def of_triton() -> AsyncIterator[tuple[dict[str, Any], str]]:
    """Spans by name as Triton sends them, OTLP in JSON over HTTP, and the address that it is to send them to."""
    spans: dict[str, Any] = {}

    async def take(request: web.Request) -> web.Response:
        for resource in (await request.json())["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                spans.update({span["name"]: span for span in scope["spans"]})
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield spans, f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    await runner.cleanup()


@pytest.fixture
async def traced(models: ModelRepository, start_triton: TritonFactory, of_triton: Any) -> str:
    """The gRPC address of a Triton that traces every request which comes with a trace."""
    models.add_identity("identity", "FP32")
    settings = ("mode=opentelemetry", "level=TIMESTAMPS", f"opentelemetry,url={of_triton[1]}")
    settings += ("opentelemetry,bsp_schedule_delay=100",)
    args = [f"--trace-config={each}" for each in settings]
    running = await asyncio.to_thread(functools.partial(start_triton, models, args=args))
    return running.address.grpc


async def keep_asking(stub: service_pb2_grpc.GRPCInferenceServiceStub, request: service_pb2.ModelInferRequest) -> None:
    """Until cancelled: Triton's exporter (opentelemetry-cpp) now and then loses the first spans that it sends."""
    while True:
        await stub.ModelInfer(request, metadata=(("traceparent", SAMPLED),), timeout=60)
        await asyncio.sleep(0.2)


async def test_tritons_own_span_is_a_child_of_the_call_to_it(
    traced: str,
    of_triton: Any,
    receiver: Any,  # noqa: F811
    eventually: Any,
) -> None:
    ours, collector = receiver
    config = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "backends": [{"name": "real", "grpc": traced}],
        "telemetry": {"tracing": {"otlp": collector, "sample": 0}},
    }
    app = App(Config.model_validate(config))
    addresses = await app.start()
    await app.until_ready()
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="IN", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.ones(4, dtype=np.float32).tobytes())
    async with grpc.aio.insecure_channel(addresses.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(keep_asking(stub, request))
            await eventually(lambda: "InferRequest" in of_triton[0])
            asking.cancel()
    assert await app.stop()
    calls = {call.span_id.hex() for call in ours.named("fairlane.upstream")}
    tritons = of_triton[0]["InferRequest"]
    for asked in ours.named("fairlane.request"):
        assert (asked.trace_id.hex(), asked.parent_span_id.hex()) == (TRACE, PARENT)
    assert tritons["traceId"] == TRACE
    assert tritons["parentSpanId"] in calls
