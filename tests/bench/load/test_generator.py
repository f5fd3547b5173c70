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

from bench.load.arrivals import offsets_s
from bench.load.generator_process import GeneratorError, run_jobs
from bench.load.job import Job
from bench.load.stream import Stream
from bench.recording.recording import Recording

FIELDS = {"tenant": "screen", "model": "minilm", "rate_per_s": 60.0}


def job(target: str, out: Path, name: str = "interactive", *, duration_s: float = 0.3, **changes: Any) -> Job:
    priority = changes.pop("triton_priority", None)
    seed = changes.pop("seed", 1)
    stream = Stream.model_validate({"class": name, **FIELDS, **changes})
    return Job(
        target=target, name=name, stream=stream, rate_per_s=stream.rate_per_s or 0.0, duration_s=duration_s, seed=seed,
        triton_priority=priority, out=out / f"{name}.json",
    )  # fmt: skip


def count(recording: Recording, name: str) -> int:
    return int(recording.counts[name].sum())


def latencies_ms(recording: Recording) -> Any:
    return np.repeat(recording.latency.values_ms, recording.latency.counts.sum(axis=0))


def test_job_survives_json() -> None:
    one = job("127.0.0.1:1", Path("x"), deadline_ms=20, arrivals="bursty")
    assert Job.model_validate_json(one.to_json()) == one


async def test_streams_reach_the_server_as_asked(kserve: Any, at_once: Any, tmp_path: Path) -> None:
    async with kserve(at_once).running() as server:
        jobs = [
            job(server.address, tmp_path, triton_priority=1),
            job(server.address, tmp_path, "background", tenant="batch", rate_per_s=120.0),
        ]
        recordings = await run_jobs(jobs)
    for one in jobs:
        recording = recordings[one.name]
        seen = [request for request, metadata in server.seen if metadata["x-priority"] == one.stream.traffic_class]
        assert count(recording, "ok") == count(recording, "arrived") == len(seen) > 0
        assert recording.cpu_s > 0
        priority = service_pb2.ModelInferRequest.FromString(seen[0]).parameters["priority"].uint64_param
        assert priority == (one.triton_priority or 0)
    assert {metadata["x-tenant-id"] for _, metadata in server.seen} == {"screen", "batch"}


async def test_latency_behind_a_slow_server_is_that_of_its_queue(
    kserve: Any, one_at_a_time: Callable[[float], Any], tmp_path: Path
) -> None:
    service_s = 0.04
    async with kserve(one_at_a_time(service_s)).running() as server:
        one = job(server.address, tmp_path, duration_s=0.5, grace_s=10.0, seed=2)
        recording = (await run_jobs([one]))["interactive"]
    assert count(recording, "ok") == count(recording, "arrived")
    # Lindley's recursion gives the least latency that arrivals which do not wait can see. Noise only adds to it.
    free_s, least_ms = 0.0, []
    for due_s in offsets_s(one.stream.arrivals, 60.0, 0.5, seed=2, stream="interactive").tolist():
        free_s = max(free_s, due_s) + service_s
        least_ms.append((free_s - due_s) * 1e3)
    assert np.all(latencies_ms(recording) >= np.sort(least_ms) - 1)
    assert latencies_ms(recording).max() > 5 * service_s * 1e3  # a client that waits would never see over 40 ms


async def test_unanswered_requests_are_censored(kserve: Any, tmp_path: Path) -> None:
    async def never(context: grpc.aio.ServicerContext) -> None:
        await asyncio.Event().wait()

    async with kserve(never).running() as server:
        recording = (await run_jobs([job(server.address, tmp_path, grace_s=0.2)]))["interactive"]
    assert count(recording, "unanswered") == count(recording, "arrived") > 0
    assert latencies_ms(recording).min() >= 200


@pytest.mark.parametrize("pushback", [None, "250", "-1"])
async def test_refusals_are_told_apart_by_their_pushback(kserve: Any, pushback: str | None, tmp_path: Path) -> None:
    async def refuse(context: grpc.aio.ServicerContext) -> None:
        if pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback),))
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full")

    async with kserve(refuse).running() as server:
        recording = (await run_jobs([job(server.address, tmp_path)]))["interactive"]
    refused = count(recording, "refused")
    assert refused == count(recording, "arrived") > 0
    assert count(recording, "no_pushback") == (0 if pushback == "250" else refused)
    assert recording.errors == {"RESOURCE_EXHAUSTED": refused}
    assert recording.refusal.counts.sum() == refused


async def test_other_codes_and_deadlines_are_kept_apart(kserve: Any, tmp_path: Path) -> None:
    async def by_class(context: grpc.aio.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if metadata["x-priority"] == "hurried":
            await asyncio.sleep(10)
        if metadata["x-priority"] == "hopeless":
            context.set_trailing_metadata((("fairlane-reason", "DEADLINE_INFEASIBLE"),))
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "would not make it")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "no backend")

    async with kserve(by_class).running() as server:
        names = {"hurried": 30.0, "hopeless": 250.0, "broken": None}
        jobs = [job(server.address, tmp_path, name, deadline_ms=ms) for name, ms in names.items()]
        found = await run_jobs(jobs)
    for name, outcome in {"hurried": "deadline", "hopeless": "infeasible", "broken": "error"}.items():
        assert count(found[name], outcome) == count(found[name], "arrived") > 0
    assert found["broken"].first_error == "UNAVAILABLE: no backend"


async def test_a_mix_sends_requests_of_all_its_sizes_each_with_its_deadline(kserve: Any, tmp_path: Path) -> None:
    async def answer(context: grpc.aio.ServicerContext) -> None:
        assert context.time_remaining() <= 10

    async with kserve(answer).running() as server:
        mix = {"rows": [1, 4], "seq": [16, 17], "deadline_ms": [9000, 10000]}
        found = (await run_jobs([job(server.address, tmp_path, rate_per_s=200.0, mix=mix)]))["interactive"]
        requests = [service_pb2.ModelInferRequest.FromString(body) for body, _ in server.seen]
    assert count(found, "ok") == len(requests)
    assert {tuple(each.inputs[0].shape) for each in requests} == {(1, 16), (1, 17), (4, 16), (4, 17)}


async def test_the_bound_on_outstanding_requests_is_reported(
    kserve: Any, one_at_a_time: Callable[[float], Any], tmp_path: Path
) -> None:
    async with kserve(one_at_a_time(30)).running() as server:
        one = job(server.address, tmp_path, max_outstanding=3, grace_s=0.1)
        recording = (await run_jobs([one]))["interactive"]
    assert count(recording, "unanswered") == len(server.seen) == 3
    assert count(recording, "unsent") == count(recording, "arrived") - 3


async def test_closed_loop_measures_what_the_server_answers(
    kserve: Any, one_at_a_time: Callable[[float], Any], tmp_path: Path
) -> None:
    async with kserve(one_at_a_time(0.02)).running() as server:
        load = job(server.address, tmp_path, "capacity", rate_per_s=None, outstanding=4)
        recording = (await run_jobs([load]))["capacity"]
    assert 0 < count(recording, "done_ok") / 0.3 <= 54  # 20 ms each, one at a time
    assert count(recording, "unanswered") == 0


async def test_a_server_without_the_model_is_an_error_with_its_reason(tmp_path: Path) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(GeneratorError, match=r"stream interactive failed[\s\S]*UNIMPLEMENTED"):
            await run_jobs([job(f"127.0.0.1:{port}", tmp_path)])
    finally:
        await server.stop(0)
