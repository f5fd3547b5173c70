"""A small KServe server in this process, and made-up recordings and results."""

import asyncio
import copy
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from bench.measuring.batch_statistics import BatchStatistics
from bench.measuring.machine import Machine
from bench.measuring.pool import PhasePool, StreamPool
from bench.measuring.process_watch import ProcessUsage
from bench.recording.outcome import Outcome
from bench.recording.recording import Recorder, Recording
from bench.scenarios.result import Result
from bench.scenarios.scenario import parse

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

    async def model_statistics(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        response = service_pb2.ModelStatisticsResponse()
        # Two versions: what was answered so far, in runs of two rows.
        for _ in range(2):
            runs = len(self.seen) // 2
            model = response.model_stats.add(name="minilm", inference_count=len(self.seen), execution_count=runs)
            model.batch_stats.add(batch_size=2).compute_infer.count = runs
        return response.SerializeToString()

    async def server_metadata(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return service_pb2.ServerMetadataResponse(name="triton", version="fake").SerializeToString()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeKServe"]:
        server = grpc.aio.server()
        rpcs = {"ModelInfer": self.infer, "ModelMetadata": self.model_metadata, "ServerMetadata": self.server_metadata}
        rpcs["ModelStatistics"] = self.model_statistics
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
def made_recording(tmp_path: Path) -> Callable[..., Recording]:
    """A recording of one second with given latencies (ms), due one after the other, all sent `late_ms` late.

    `outcomes` are theirs, OK where there are fewer; None is never answered.
    """

    def make(
        latencies_ms: Sequence[float],
        *,
        outcomes: Sequence[Outcome | None] = (),
        seconds: float = 1.0,
        late_ms: float = 0.0,
        pushback: bool = True,
        deadline_ms: float | None = None,
    ) -> Recording:
        recorder = Recorder(seconds, deadline_ms)
        ends = [*outcomes, *[Outcome.OK] * (len(latencies_ms) - len(outcomes))]
        for place, (latency_ms, outcome) in enumerate(zip(latencies_ms, ends, strict=True)):
            due_s = seconds * place / len(latencies_ms) / 2  # in the first half, so that answers come within the run
            number = recorder.arrive(due_s)
            recorder.send(number, due_s + late_ms / 1e3)
            if outcome is not None:
                recorder.finish(number, due_s + latency_ms / 1e3, outcome, pushback=pushback)
        path = tmp_path / "made.json"
        recorder.save(path, end_s=seconds + 2.0, cpu_s=0.001 * len(latencies_ms))
        return Recording.load(path)

    return make


SCENARIO = {
    "title": "Two streams",
    "rounds": 2,
    "targets": ["triton", "fairlane"],
    "streams": {
        "interactive": {"class": "interactive", "tenant": "screen", "model": "minilm", "rate_per_s": 20},
        "flood": {
            "class": "background", "tenant": "batch", "model": "minilm", "of_capacity": 2,
            "lateness_p99_bound_ms": None,
        },
    },
    "phases": {
        "alone": {"streams": ["interactive"], "seconds": 1},
        "flood": {"streams": ["interactive", "flood"], "seconds": 1},
    },
    "verdicts": {
        "p99": {
            "claim": "p99 <= 3 x alone", "value": "fairlane.flood.interactive.p99_ms",
            "over": "fairlane.alone.interactive.p99_ms", "at_most": 3,
        },
        "throughput": {
            "claim": "at least 0.9", "value": "fairlane.flood.ok_per_s", "over": "triton.flood.ok_per_s",
            "at_least": 0.9,
        },
        "answered": {"claim": "all answered", "value": "fairlane.flood.interactive.not_ok", "at_most": 0},
        "memory": {"claim": "flat", "value": "fairlane.flood.hop_growth_mib", "at_most": 8},
    },
}  # fmt: skip


@pytest.fixture
def definition() -> dict[str, Any]:
    """A scenario's content, to be changed."""
    return copy.deepcopy(SCENARIO)


@pytest.fixture
def made_result(made_recording: Callable[..., Recording]) -> Callable[..., Result]:
    """A result of two rounds in which everything is right; `change` replaces recordings of CELL.STREAM."""
    p99_ms = {"triton.alone": 5, "triton.flood": 400, "fairlane.alone": 8, "fairlane.flood": 20}
    rss_mib = [80.0, 90, 100, 100, 100, 100, 101, 101, 101]
    usage = ProcessUsage(at_s=[float(at) for at in range(9)], rss_mib=rss_mib, cpu_s=0.1)

    def make(change: dict[str, list[Recording]] | None = None, *, others_cores: float = 0.0) -> Result:
        scenario = parse(copy.deepcopy(SCENARIO), Path("made.yaml"))
        pools = {}
        for cell, latency_ms in p99_ms.items():
            streams = {}
            for name in scenario.phases[cell.split(".")[1]].streams:
                recordings = [made_recording([latency_ms] * 100) for _ in range(2)]
                batches = [BatchStatistics(rows=10, runs=4, sizes=Counter({1: 2, 4: 2}))] * 2
                streams[name] = StreamPool((change or {}).get(f"{cell}.{name}", recordings), 100.0, batches)
            pools[cell] = PhasePool(streams, [usage if cell.startswith("fairlane") else None] * 2)
        return Result(
            name="made", scenario=scenario, machine=Machine.here(), seed=7, triton_version="fake",
            capacity_per_s={"interactive": 100.0, "flood": 100.0}, pools=pools,
            others_cores={cell: [0.0, others_cores] for cell in pools},
        )  # fmt: skip

    return make
