"""Mixed traffic, cancellations, bad requests and killed Tritons: every request ends once, and memory stays flat.

`make soak` runs it for half an hour; among the tests it takes SHORT_S. Counted from both sides: what the clients
offered is what was answered, refused or cancelled, and the scheduler's own counts agree with that, code by code.
Memory is judged by its slope over the second half, in bytes a request (`Slope`). Half an hour tells a leak of
LEAK_BYTES a request from none: histories have filled up by then, the longest is that of the page with five minutes.
A minute tells a leak of a few hundred bytes a request.
"""

import asyncio
import json
import math
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.edge.status import CODES
from tests.real_triton import ModelRepository
from tests.serving import resident_bytes, serve_process

SHORT_S = 60.0
SOAK_S = float(os.environ.get("FAIRLANE_SOAK_S", str(SHORT_S)))
KILL_EVERY_S = max(20.0, SOAK_S / 20)
SAMPLE_S = 1.0
WORKERS = 24
# Every fourth second nobody pauses: requests wait, and are cancelled while they do. In between queues run empty.
RUSH_EVERY_S = 4
PAUSE_S = 0.05
# Numbers in a row of a request. Now and then a large one: who loses a message loses more than its array.
COLUMNS = (4,) * 7 + (1024,)
# The slope may be this, of which no allocator's chance makes more; what leaks does so with an object, of 16 or more
# bytes, in one request of many.
LEAK_BYTES = 1.0
SETTLED_S = 600.0
# Before that: what the page's and the tenants' histories take on while they fill, and the allocator's arenas with them.
GROWTH_BYTES = 4 * 1024 * 1024
BLOCKS = 30
Z_95 = 1.96
# docs/reference/protocol.md, how a request ends; a ticket that the caller left or the backend answered has a code of
# its own.
CODE_OF = {outcome.name: code.name for outcome, code in CODES.items()} | {
    "COMPLETED": "OK",
    "CANCELLED": "CANCELLED",
    "FAILED": "FAILED",
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "UNKNOWN_MODEL": "NOT_FOUND",
}


def request_of(value: int, rows: int = 1) -> Any:
    columns = COLUMNS[value % len(COLUMNS)]
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="IN", datatype="INT64", shape=[rows, columns])
    request.raw_input_contents.append(np.full((rows, columns), value, dtype=np.int64).tobytes())
    return request


# What the clients ended themselves. The last is grpc.aio's own word on a stream whose deadline passed before it had
# left, as when the whole machine stood still (grpc/grpc#36066).
GIVEN_UP = {"CANCELLED", "DEADLINE_EXCEEDED", "STREAM_INTERNAL: Internal error from Core"}


class Traffic:
    """The clients: each request is counted once when it is offered and once when it ends."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self._random = random.Random(7)
        self.offered = 0
        self.ended: Counter[str] = Counter()
        self.over = False

    async def worker(self, number: int) -> None:
        metadata = (("x-tenant-id", f"t{number % 5}"), ("x-priority", ("interactive", "background")[number % 2]))
        while not self.over:
            kind = self._random.choices(
                (self._plain, self._hurried, self._cancelled, self._bad, self._stream), (12, 2, 2, 1, 1)
            )[0]
            await kind(metadata)
            if int(asyncio.get_running_loop().time()) % RUSH_EVERY_S:
                await asyncio.sleep(self._random.expovariate(1 / PAUSE_S))

    async def _plain(self, metadata: Any) -> None:
        value, rows = self._offer()
        await self._count(self._stub.ModelInfer(request_of(value, rows), metadata=metadata, timeout=30), value)

    async def _hurried(self, metadata: Any) -> None:
        value, rows = self._offer()
        timeout_s = self._random.uniform(0.0005, 0.02)
        await self._count(self._stub.ModelInfer(request_of(value, rows), metadata=metadata, timeout=timeout_s), value)

    async def _cancelled(self, metadata: Any) -> None:
        value, rows = self._offer()
        call = self._stub.ModelInfer(request_of(value, rows), metadata=metadata, timeout=30)
        asyncio.get_running_loop().call_later(self._random.uniform(0, 0.02), call.cancel)
        await self._count(call, value)

    async def _bad(self, metadata: Any) -> None:
        value, _ = self._offer()
        await self._count(self._stub.ModelInfer(request_of(value, 9), metadata=metadata, timeout=30), value)

    async def _stream(self, metadata: Any) -> None:
        values = [self._offer()[0] for _ in range(10)]

        async def requests() -> AsyncIterator[Any]:
            for value in values:
                yield request_of(value)

        got = 0
        try:
            async for response in self._stub.ModelStreamInfer(requests(), metadata=metadata, timeout=30):
                answer = response.infer_response
                if response.error_message:
                    await self._refused(answer.parameters["fairlane_code"].string_param)
                else:
                    self._answered(answer, values[got])
                got += 1
        except grpc.aio.AioRpcError as error:
            # The whole stream: a deadline is the client's own, whatever else is told by what it said.
            told = error.code().name
            self.ended[told if told == "DEADLINE_EXCEEDED" else f"STREAM_{told}: {error.details()}"] += (
                len(values) - got
            )
        else:
            assert got == len(values)

    def _offer(self) -> tuple[int, int]:
        self.offered += 1
        return self.offered, self._random.randint(1, 4)

    async def _count(self, call: Any, value: int) -> None:
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            await self._refused(error.code().name)
        except asyncio.CancelledError:
            if not call.cancelled():
                raise
            self.ended["CANCELLED"] += 1
        else:
            self._answered(answer, value)

    async def _refused(self, code: str) -> None:
        self.ended[code] += 1
        if code in {"UNAVAILABLE", "NOT_FOUND"}:
            await asyncio.sleep(0.05)  # as a client does that is told to come again

    def _answered(self, answer: Any, value: int) -> None:
        assert np.frombuffer(answer.raw_output_contents[0], dtype=np.int64)[0] == value
        self.ended["OK"] += 1


def tritonserver_under(pid: int) -> int | None:
    """The embedded server, found by walking up from every process of that name."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
    for each in parents:
        try:
            if Path(f"/proc/{each}/comm").read_text().strip() != "tritonserver":
                continue
        except OSError:
            continue
        above = each
        while above in parents and above != pid:
            above = int(parents[above])
        if above == pid:
            return each
    return None


@dataclass(frozen=True)
class Sample:
    """What the scheduler held when so many requests had been offered."""

    at_s: float
    requests: int
    resident: int


@dataclass(frozen=True)
class Slope:
    """A slope and its interval of 95 %, by Theil (1950) and Sen (1968).

    The median of the slopes between all pairs, which a step that is taken back does not move. Neighbouring samples
    say the same: they go in as the medians of BLOCKS blocks.
    """

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, x: Any, y: Any) -> "Slope":
        blocks = min(BLOCKS, len(x))
        x, y = (
            np.array([np.median(block) for block in np.array_split(np.asarray(each, np.float64), blocks)])
            for each in (x, y)
        )
        earlier, later = np.triu_indices(blocks, 1)
        slopes = np.sort((y[later] - y[earlier]) / (x[later] - x[earlier]))
        # Kendall's S of no slope at all: its standard deviation, in pairs.
        spread = Z_95 * math.sqrt(blocks * (blocks - 1) * (2 * blocks + 5) / 18)
        low, high = round((len(slopes) - spread) / 2), round((len(slopes) + spread) / 2)
        return cls(
            *(float(each) for each in (slopes[max(0, low)], np.median(slopes), slopes[min(high, len(slopes) - 1)]))
        )

    def __str__(self) -> str:
        return f"{self.middle:+.2f} (95 %: {self.low:+.2f} to {self.high:+.2f})"


def test_slope_tells_a_leak_from_a_level() -> None:
    requests = np.arange(900) * 700
    noise = np.random.default_rng(5).integers(-64, 64, 900) * 4096  # pages that come and go
    level, leak = Slope.of(requests, noise), Slope.of(requests, noise + 3 * requests)
    assert level.low < 0 < level.high
    assert leak.low > 2 * LEAK_BYTES
    assert Slope.of(requests, 3 * requests) == Slope(3.0, 3.0, 3.0)


@pytest.mark.timeout(SOAK_S * 2 + 120)
async def test_soak_loses_no_request_and_no_memory(models: ModelRepository, tmp_path: Path) -> None:
    models.add_identity("identity", "INT64")
    # Checks of merged requests would be counted with those of the clients.
    (tmp_path / "fairlane.yaml").write_text("models: {identity: {check_merging: false}}")
    flags = ("--model-repository", str(models.path), "--config", str(tmp_path / "fairlane.yaml"))
    async with serve_process(tmp_path / "serve.err", *flags) as served_by:
        samples, traffic, served = await soak(served_by.process.pid, served_by.grpc, served_by.http)
    print(f"\noffered {traffic.offered}\nclients   {dict(traffic.ended)}\nscheduler {dict(+served)}")
    settled = samples[len(samples) // 2 :]
    slope = growth_a_request(samples[0], settled)
    check_counts(traffic, served)
    if SOAK_S >= 2 * SETTLED_S:
        assert slope.low <= 0 or slope.middle < LEAK_BYTES
    else:
        assert slope.middle * (settled[-1].requests - settled[0].requests) < GROWTH_BYTES


async def soak(pid: int, address: str, http: str) -> tuple[list[Sample], Traffic, Counter[str]]:
    """Run the traffic; a sample each SAMPLE_S, the clients' counts, the scheduler's counts by gRPC code."""
    loop = asyncio.get_running_loop()
    samples = []
    async with grpc.aio.insecure_channel(address) as channel, aiohttp.ClientSession(http) as session:
        traffic = Traffic(service_pb2_grpc.GRPCInferenceServiceStub(channel))
        workers = [asyncio.ensure_future(traffic.worker(number)) for number in range(WORKERS)]
        end, kill_at = loop.time() + SOAK_S, loop.time() + KILL_EVERY_S
        while loop.time() < end:
            await asyncio.sleep(SAMPLE_S)
            samples.append(Sample(loop.time(), traffic.offered, resident_bytes(pid)))
            if loop.time() >= kill_at and (server := tritonserver_under(pid)) is not None:
                os.kill(server, signal.SIGKILL)
                kill_at += KILL_EVERY_S
        traffic.over = True
        await asyncio.gather(*workers)
        async with asyncio.timeout(60):
            while True:
                async with session.get("/debug/snapshot") as reply:
                    state = json.loads(await reply.text())
                if not state["queued"] + state["in_flight"]:
                    break
                await asyncio.sleep(0.05)
        async with session.get("/metrics") as reply:
            return samples, traffic, served_by_code(state["ended"], await reply.text())


def served_by_code(ended: dict[str, int], metrics: str) -> Counter[str]:
    """What the scheduler ended, tickets and requests that never became one, by the code that it told."""
    by_code: Counter[str] = Counter()
    for outcome, count in ended.items():
        by_code[CODE_OF[outcome]] += count
    for family in text_string_to_metric_families(metrics):
        if family.name == "fairlane_invalid_requests":
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    by_code[CODE_OF[sample.labels["reason"]]] += int(sample.value)
    return by_code


def check_counts(traffic: Traffic, served: Counter[str]) -> None:
    """Offered = answered + refused + cancelled, by the clients' count and by the scheduler's."""
    assert traffic.ended.total() == traffic.offered
    # Calls that the clients gave up themselves: the scheduler never saw them, or ended them in whatever way.
    given_up = sum(traffic.ended[code] for code in GIVEN_UP)
    assert traffic.offered - given_up <= served.total() <= traffic.offered
    for code in (traffic.ended | served).keys() - GIVEN_UP:
        assert traffic.ended[code] <= served[code] <= traffic.ended[code] + given_up, code


def growth_a_request(first: Sample, settled: list[Sample]) -> Slope:
    """By how many bytes a request memory grew over the settled part; it is printed."""
    requests, resident = ([getattr(each, name) for each in settled] for name in ("requests", "resident"))
    slope = Slope.of(requests, resident)
    a_minute = Slope.of([each.at_s / 60 for each in settled], [each / 1024 for each in resident])
    print(
        f"resident {first.resident / 2**20:.1f} MiB at first, {resident[0] / 2**20:.1f} at half time, "
        f"{resident[-1] / 2**20:.1f} at the end\nslope over the second half, {requests[-1] - requests[0]} requests in "
        f"{settled[-1].at_s - settled[0].at_s:.0f} s: {slope} bytes a request, {a_minute} KiB a minute"
    )
    return slope
