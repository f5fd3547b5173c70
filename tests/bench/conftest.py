"""A small KServe server in this process, and made-up samples."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from bench.machine import Machine
from bench.outcome import Outcome
from bench.plan import BACKGROUND, INTERACTIVE, PHASES
from bench.process_watch import ProcessUsage
from bench.result import Result, Run
from bench.samples import Samples

SERVICE = "inference.GRPCInferenceService"
Answer = Callable[[grpc.aio.ServicerContext], Awaitable[None]]


@dataclass
class FakeKServe:
    """Serves `minilm`'s metadata, and answers each inference as `answer` says.

    `seen` holds request bytes and metadata in order of arrival.
    """

    answer: Answer
    address: str = ""
    seen: list[tuple[bytes, dict[str, str]]] = field(default_factory=list)

    async def infer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.seen.append((request, dict(context.invocation_metadata() or ())))
        await self.answer(context)
        return service_pb2.ModelInferResponse(model_name="minilm").SerializeToString()

    async def model_metadata(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        response = service_pb2.ModelMetadataResponse(name="minilm")
        for name in ("input_ids", "attention_mask"):
            response.inputs.add(name=name, datatype="INT64", shape=[-1, -1])
        return response.SerializeToString()

    async def server_metadata(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return service_pb2.ServerMetadataResponse(name="triton", version="fake").SerializeToString()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeKServe"]:
        server = grpc.aio.server()
        rpcs = {"ModelInfer": self.infer, "ModelMetadata": self.model_metadata, "ServerMetadata": self.server_metadata}
        handlers = {name: grpc.unary_unary_rpc_method_handler(rpc) for name, rpc in rpcs.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)


@pytest.fixture
def kserve() -> type[FakeKServe]:
    return FakeKServe


@pytest.fixture
def at_once() -> Answer:
    async def answer(context: grpc.aio.ServicerContext) -> None:
        del context

    return answer


@pytest.fixture
def one_at_a_time() -> Callable[[float], Answer]:
    """An answer that takes so many seconds, with a queue in front of it."""

    def of(service_s: float) -> Answer:
        lock = asyncio.Lock()

        async def answer(context: grpc.aio.ServicerContext) -> None:
            async with lock:
                await asyncio.sleep(service_s)

        return answer

    return of


@pytest.fixture
def made_samples() -> Callable[..., Samples]:
    """Samples of given latencies (ms), due every 10 ms from 5 ms on, OK and sent in time unless told otherwise."""

    def make(latencies_ms: list[float], **changes: Any) -> Samples:
        n = len(latencies_ms)
        due_s = (np.arange(n) + 0.5) * 0.01
        columns: dict[str, Any] = {
            "due_s": due_s,
            "sent_s": due_s,
            "done_s": due_s + np.array(latencies_ms) / 1e3,
            "outcome": np.full(n, Outcome.OK, np.uint8),
            "pushback": np.zeros(n, np.bool_),
            "duration_s": max(n, 1) * 0.01,
            "end_s": max(n, 1) * 0.01 + 2.0,
            "cpu_s": 0.001 * n,
            "errors": {},
            "first_error": "",
        }
        return Samples(**{**columns, **changes})

    return make


@pytest.fixture
def made_result(made_samples: Callable[..., Samples]) -> Callable[..., Result]:
    """A result whose every verdict passes; `change` replaces samples of (phase, stream)."""
    half_refused = np.where(np.arange(100) % 2, Outcome.OK, Outcome.REFUSED).astype(np.uint8)
    flood = made_samples([50.0] * 100, outcome=half_refused, pushback=half_refused == Outcome.REFUSED)
    p99_ms = {"triton-alone": 5, "fairlane-alone": 8, "triton-flood": 4000, "priorities-flood": 400}

    def make(change: dict[tuple[str, str], Samples] | None = None, rss_mib: list[float] | None = None) -> Result:
        runs = {}
        for phase in PHASES:
            latency_ms = float(p99_ms.get(phase.name, 20))
            samples = {INTERACTIVE: made_samples([latency_ms] * 100)}
            if phase.flooded:
                samples[BACKGROUND] = flood
            samples |= {stream: new for (name, stream), new in (change or {}).items() if name == phase.name}
            series = rss_mib or [100.0] * 9
            usage = ProcessUsage(at_s=list(map(float, range(len(series)))), rss_mib=series, cpu_s=0.1)
            scheduler = usage if phase.name.startswith("fairlane") else None
            runs[phase.name] = Run(phase=phase, samples=samples, scheduler=scheduler)
        return Result(
            machine=Machine.here(), seed=7, capacity_per_s=(100.0, 110.0), flood_per_s=200.0, runs=runs,
            triton_version="fake",
        )  # fmt: skip

    return make
