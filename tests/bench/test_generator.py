"""The generator as it is used: real processes against a server in this one."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from bench.load import GeneratorError, run_streams
from bench.outcome import Outcome
from bench.stream import Job, Stream
from bench.summary import load_faults, summarize


def stream(name: str = "interactive", **changes: Any) -> Stream:
    fields = {"traffic_class": name, "tenant": "screen", "model": "minilm", "duration_s": 0.3, "rate_per_s": 60.0}
    return Stream(**{"name": name, **fields, **changes})


def test_job_survives_json() -> None:
    job = Job(target="127.0.0.1:1", stream=stream(deadline_ms=20), seed=3, out=Path("x.npz"))
    assert Job.from_json(job.to_json()) == job


async def test_streams_reach_the_server_as_asked(kserve: Any, at_once: Any, tmp_path: Path) -> None:
    streams = [stream(triton_priority=1), stream("background", tenant="batch", rate_per_s=120.0)]
    async with kserve(at_once).running() as server:
        results = await run_streams(server.address, streams, seed=1, out=tmp_path)
    for one in streams:
        samples = results[one.name]
        seen = [request for request, metadata in server.seen if metadata["x-priority"] == one.traffic_class]
        assert samples.count(Outcome.OK) == len(samples.due_s) == len(seen) > 0
        assert samples.cpu_s > 0
        priority = service_pb2.ModelInferRequest.FromString(seen[0]).parameters["priority"].uint64_param
        assert priority == (one.triton_priority or 0)
    assert {metadata["x-tenant-id"] for _, metadata in server.seen} == {"screen", "batch"}


async def test_latency_behind_a_slow_server_is_that_of_its_queue(
    kserve: Any, one_at_a_time: Callable[[float], Any], tmp_path: Path
) -> None:
    service_s = 0.04
    async with kserve(one_at_a_time(service_s)).running() as server:
        results = await run_streams(server.address, [stream(duration_s=0.5, grace_s=10.0)], seed=2, out=tmp_path)
    samples = results["interactive"]
    assert samples.count(Outcome.OK) == len(samples.due_s)
    # Lindley's recursion gives the least latency that arrivals which do not wait can see. Noise only adds to it.
    free_s, least_ms = 0.0, []
    for due_s in samples.due_s.tolist():
        free_s = max(free_s, due_s) + service_s
        least_ms.append((free_s - due_s) * 1e3)
    assert np.all(np.sort(samples.latency_ms) >= np.sort(least_ms) - 1)
    assert samples.latency_ms.max() > 5 * service_s * 1e3  # a client that waits would never see over 40 ms


async def test_unanswered_requests_are_censored(kserve: Any, tmp_path: Path) -> None:
    async def never(context: grpc.aio.ServicerContext) -> None:
        await asyncio.Event().wait()

    async with kserve(never).running() as server:
        results = await run_streams(server.address, [stream(grace_s=0.2)], seed=3, out=tmp_path)
    samples = results["interactive"]
    assert samples.count(Outcome.UNANSWERED) == len(samples.due_s)
    np.testing.assert_allclose(samples.latency_ms, (samples.end_s - samples.due_s) * 1e3)
    assert summarize(samples).p99_ms >= 200


@pytest.mark.parametrize("pushback", [None, "250", "-1"])
async def test_refusals_are_told_apart_by_their_pushback(kserve: Any, pushback: str | None, tmp_path: Path) -> None:
    async def refuse(context: grpc.aio.ServicerContext) -> None:
        if pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full")

    async with kserve(refuse).running() as server:
        results = await run_streams(server.address, [stream()], seed=4, out=tmp_path)
    summary = summarize(results["interactive"])
    assert summary.refused == summary.n > 0
    assert summary.refused_without_pushback == (0 if pushback == "250" else summary.n)
    assert summary.errors == {"RESOURCE_EXHAUSTED": summary.n}


async def test_other_codes_and_deadlines_are_kept_apart(kserve: Any, tmp_path: Path) -> None:
    async def by_class(context: grpc.aio.ServicerContext) -> None:
        if ("x-priority", "hurried") in (context.invocation_metadata() or ()):
            await asyncio.sleep(10)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no backend")

    streams = [stream("hurried", deadline_ms=30), stream("broken")]
    async with kserve(by_class).running() as server:
        results = await run_streams(server.address, streams, seed=5, out=tmp_path)
    hurried, broken = summarize(results["hurried"]), summarize(results["broken"])
    assert hurried.deadline == hurried.n > 0
    assert broken.error == broken.n > 0
    assert broken.first_error == "UNAVAILABLE: no backend"


async def test_the_bound_on_outstanding_requests_is_reported(
    kserve: Any, one_at_a_time: Callable[[float], Any], tmp_path: Path
) -> None:
    bounded = stream(max_outstanding=3, grace_s=0.1)
    async with kserve(one_at_a_time(30)).running() as server:
        results = await run_streams(server.address, [bounded], seed=6, out=tmp_path)
    summary = summarize(results["interactive"])
    assert summary.unanswered == len(server.seen) == 3
    assert summary.unsent == summary.n - 3
    assert any("bound" in fault for fault in load_faults("interactive", summary, lateness_p99_bound_ms=None))


async def test_closed_loop_measures_what_the_server_answers(
    kserve: Any, one_at_a_time: Callable[[float], Any], tmp_path: Path
) -> None:
    load = stream("capacity", rate_per_s=0.0, outstanding=4)
    async with kserve(one_at_a_time(0.02)).running() as server:
        results = await run_streams(server.address, [load], seed=7, out=tmp_path)
    summary = summarize(results["capacity"])
    assert 0 < summary.ok_per_s <= 50  # 20 ms each, one at a time
    assert summary.unanswered == 0


async def test_a_server_without_the_model_is_an_error_with_its_reason(tmp_path: Path) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(GeneratorError, match=r"stream interactive failed[\s\S]*UNIMPLEMENTED"):
            await run_streams(f"127.0.0.1:{port}", [stream()], seed=8, out=tmp_path)
    finally:
        await server.stop(0)
