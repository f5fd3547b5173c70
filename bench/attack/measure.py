"""A tenant's latency with nobody attacked, with a decoy attacked, and with the service attacked, in rounds."""

import asyncio
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
import numpy as np
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.http2.connection import CallStatus, Http2Connection
from bench.http2.service import SERVICE
from bench.load.payload import infer_request
from bench.load.stream import Stream
from bench.processes.parent_death import killed_with_parent

MODEL: Final = "digits"
# Name -> times a second.
ATTACKS: Final = {
    "drops": 1000.0,
    "half-open": 500.0,
    "headers": 200.0,
    "idle": 500.0,
    "resets": 10.0,
    "slow-readers": 5.0,
}
# Nobody waits longer; a request that is not answered then counts as lost.
TIMEOUT_S: Final = 20.0
WARMUP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class TenantResult:
    """The tenant's side of some seconds: latencies from the due time, and what was not answered, by code."""

    latencies_ms: list[float]
    lost: dict[str, int]

    @property
    def p99_ms(self) -> float:
        """The 99th percentile; infinite where nothing was answered."""
        return float(np.percentile(self.latencies_ms, 99)) if self.latencies_ms else float("inf")


@dataclass(frozen=True, slots=True)
class Result:
    """One attack: p99 of each round, how often the attackers did it, and what the scheduler's memory came to."""

    alone_p99_ms: list[float]
    elsewhere_p99_ms: list[float]
    attacked_p99_ms: list[float]
    answered: int
    lost: dict[str, int]
    done: int
    grown_bytes: int | None

    @property
    def ratio(self) -> float:
        """Median over the rounds of attacked / somebody else attacked."""
        return _median_ratio(self.attacked_p99_ms, self.elsewhere_p99_ms)

    @property
    def ratio_to_alone(self) -> float:
        """Median over the rounds of attacked / nobody attacked: with what the attackers took of the machine."""
        return _median_ratio(self.attacked_p99_ms, self.alone_p99_ms)


def _median_ratio(those: list[float], these: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(those, these, strict=True))


async def run_tenant(address: str, body: bytes, per_s: float, seconds: float) -> TenantResult:
    """The tenant asks `per_s` times a second for `seconds`."""
    loop = asyncio.get_running_loop()
    metadata = (("x-tenant-id", "victim"), ("x-priority", "interactive"))
    connection = await Http2Connection.connect(address, f"{SERVICE}/ModelInfer", metadata, timeout_s=TIMEOUT_S)
    told = TenantResult([], {})

    def fire(due: float) -> None:
        def ended(end: CallStatus) -> None:
            if end.code is grpc.StatusCode.OK:
                told.latencies_ms.append((loop.time() - due) * 1e3)
            else:
                told.lost[end.code.name] = told.lost.get(end.code.name, 0) + 1

        connection.call(body, [ended])

    began = loop.time()
    for number in range(int(per_s * seconds)):
        due = began + number / per_s
        await asyncio.sleep(max(0.0, due - loop.time()))
        fire(due)
    while connection.outstanding:  # noqa: ASYNC110 - each ends by TIMEOUT_S
        await asyncio.sleep(0.01)
    connection.close()
    return told


@asynccontextmanager
async def decoy() -> AsyncIterator[str]:
    """Somebody else who can be attacked: the address, HOST:PORT."""
    command = killed_with_parent(sys.executable, "-m", "bench.attack.decoy")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


async def run_tenant_under_attack(
    kind: str, where: str, address: str, body: bytes, per_s: float, seconds: float
) -> tuple[TenantResult, int]:
    """A visit to `address` while `where` is attacked, and how often the attackers did what they do."""
    command = killed_with_parent(
        sys.executable, "-m", "bench.attack.attacker", kind, where, str(ATTACKS[kind]), str(seconds)
    )
    attacker = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        attacker.stdin.write(body)
        attacker.stdin.close()
        told = await run_tenant(address, body, per_s, seconds)
        return told, int(json.loads(await attacker.stdout.readline())["done"])
    finally:
        if attacker.returncode is None:
            attacker.kill()
        await attacker.wait()


async def measure(
    address: str, kind: str, *, per_s: float, seconds: float, rounds: int, model: str = MODEL, pid: int | None = None
) -> Result:
    """Rounds of three parts: nobody is attacked, somebody else is, the service is.

    Args:
        address: of the scheduler, HOST:PORT.
        kind: one of ATTACKS.
        per_s: of the tenant that is to be served.
        seconds: of each part of a round.
        rounds: how many.
        model: what is asked for; its metadata says how.
        pid: the scheduler's process, where its memory is to be looked at.
    """
    body = await request_body(address, model)
    await run_tenant(address, body, per_s, min(WARMUP_S, seconds))
    alone, elsewhere, under, done = [], [], [], 0
    before = _resident_bytes(pid)
    for _ in range(rounds):
        alone.append(await run_tenant(address, body, per_s, seconds))
        async with decoy() as other:
            elsewhere.append((await run_tenant_under_attack(kind, other, address, body, per_s, seconds))[0])
        told, times = await run_tenant_under_attack(kind, address, address, body, per_s, seconds)
        under.append(told)
        done += times
    after = _resident_bytes(pid)
    visits = (*alone, *elsewhere, *under)
    lost: Counter[str] = Counter()
    for each in visits:
        lost.update(each.lost)
    return Result(
        alone_p99_ms=[each.p99_ms for each in alone],
        elsewhere_p99_ms=[each.p99_ms for each in elsewhere],
        attacked_p99_ms=[each.p99_ms for each in under],
        answered=sum(len(each.latencies_ms) for each in visits),
        lost=dict(lost),
        done=done,
        grown_bytes=None if before is None or after is None else after - before,
    )


async def request_body(address: str, model: str) -> bytes:
    """A request to the model, one row of random values."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = await stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=model), timeout=60)
    stream = Stream.model_validate({"model": model, "class": "interactive", "tenant": "victim", "outstanding": 1})
    return infer_request(stream, metadata, seed=1)


def _resident_bytes(pid: int | None) -> int | None:
    return None if pid is None else int(psutil.Process(pid).memory_info().rss)
