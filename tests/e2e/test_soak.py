"""Mixed traffic, cancellations, bad requests and killed Tritons: every request ends once, and memory stays flat.

`make soak` runs it for half an hour; among the tests it takes SHORT_S. Counted from both sides: what the clients
offered is what was answered, refused or cancelled, and the scheduler's own counts agree with that, code by code.
Memory is judged by its slope over the second half, when every history that is kept for a while has filled up or is
filling at its steady rate (Theil and Sen: the median of the slopes between all pairs of samples, which a step that
is taken back does not move).
"""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
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
# What the page's and the tenants' histories take on while their minutes fill, and the allocator's arenas with them.
GROWTH_BYTES = 4 * 1024 * 1024
# docs/protocol.md, how a request ends; a ticket that the caller left or the backend answered has a code of its own.
CODE_OF = {outcome.name: code.name for outcome, code in CODES.items()} | {
    "COMPLETED": "OK",
    "CANCELLED": "CANCELLED",
    "FAILED": "FAILED",
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "UNKNOWN_MODEL": "NOT_FOUND",
}


def request_of(value: int, rows: int = 1) -> Any:
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="IN", datatype="INT64", shape=[rows, 4])
    request.raw_input_contents.append(np.full((rows, 4), value, dtype=np.int64).tobytes())
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


@pytest.mark.timeout(SOAK_S * 2 + 120)
async def test_soak_loses_no_request_and_no_memory(models: ModelRepository, tmp_path: Path) -> None:
    models.add_identity("identity", "INT64")
    async with serve_process(tmp_path / "serve.err", "--model-repository", str(models.path)) as served_by:
        sizes, traffic, served = await soak(served_by.process.pid, served_by.grpc, served_by.http)
    print(f"\noffered {traffic.offered}\nclients   {dict(traffic.ended)}\nscheduler {dict(+served)}")
    growth = growth_bytes(sizes, sum(served.values()))
    check_counts(traffic, served)
    assert growth < GROWTH_BYTES


async def soak(pid: int, address: str, http: str) -> tuple[list[int], Traffic, Counter[str]]:
    """Run the traffic; the resident bytes each SAMPLE_S, the clients' counts, the scheduler's counts by gRPC code."""
    loop = asyncio.get_running_loop()
    sizes = []
    async with grpc.aio.insecure_channel(address) as channel, aiohttp.ClientSession(http) as session:
        traffic = Traffic(service_pb2_grpc.GRPCInferenceServiceStub(channel))
        workers = [asyncio.ensure_future(traffic.worker(number)) for number in range(WORKERS)]
        end, kill_at = loop.time() + SOAK_S, loop.time() + KILL_EVERY_S
        while loop.time() < end:
            await asyncio.sleep(SAMPLE_S)
            sizes.append(resident_bytes(pid))
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
            return sizes, traffic, served_by_code(state["ended"], await reply.text())


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


def growth_bytes(sizes: list[int], requests: int) -> float:
    """What the slope over the second half makes of it."""
    settled = np.array(sizes[len(sizes) // 2 :], np.float64)
    earlier, later = np.triu_indices(len(settled), 1)
    slope = float(np.median((settled[later] - settled[earlier]) / (later - earlier)))
    growth = slope * len(settled)
    print(
        f"resident {sizes[0] >> 20} MiB at first, {sizes[len(sizes) // 2] >> 20} at half time, {sizes[-1] >> 20} "
        f"at the end; slope over the second half {slope / SAMPLE_S / 1024:+.2f} KiB/s: {growth / 2**20:+.2f} MiB in "
        f"{len(settled) * SAMPLE_S:.0f} s, {2 * growth / requests:+.1f} bytes a request"
    )
    return growth
