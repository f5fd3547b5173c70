"""The machine's clock jumps, the disk is full, standard output is closed: `fairlane serve` goes on as before."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import aiohttp
import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.targets.server_process import free_addresses
from scheduler.triton.fake import FakeModel, FakeTriton

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
# Of Debian's libfaketime: where the package puts it, and where tests/debian-tools.sh does.
LIBRARIES = (
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    Path(sys.executable).with_name("libfaketimeMT.so.1"),
)
LIBRARY = next((path for path in LIBRARIES if path.exists()), None)


def request_of(value: int) -> Any:
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="INPUT", datatype="INT64", shape=[1, 1])
    request.raw_input_contents.append(np.array([[value]], dtype=np.int64).tobytes())
    return request


@dataclass
class Serving:
    """A running service of its own process, in front of a fake Triton that the test holds and releases."""

    process: asyncio.subprocess.Process
    triton: FakeTriton
    stub: Any
    http: aiohttp.ClientSession

    async def infer(self, value: int, timeout_s: float = 60) -> None:
        answer = await self.stub.ModelInfer(request_of(value), timeout=timeout_s)
        assert np.frombuffer(answer.raw_output_contents[0], dtype=np.int64).tolist() == [value]

    async def get(self, path: str) -> str:
        async with self.http.get(path) as reply:
            assert reply.status == 200
            return await reply.text()


@asynccontextmanager
async def serving(
    path: Path,
    config: dict[str, Any],
    *,
    stdout: int | IO[bytes] | None,
    stderr: IO[bytes],
    env: dict[str, str] | None = None,
) -> AsyncIterator[Serving]:
    """Serve with this standard output; None: the process begins without one."""
    triton = FakeTriton((FakeModel("identity", dims=(1,)),))
    backend = await triton.start()
    listen, http = free_addresses(2)
    path.write_text(json.dumps(config | {"listen": {"grpc": listen, "http": http}}))  # noqa: ASYNC240 - a few bytes
    process = await asyncio.create_subprocess_exec(
        *(("sh", "-c", 'exec "$@" >&-', "sh") if stdout is None else ()),
        *(sys.executable, "-m", "scheduler", "serve", "--config", str(path), "--backend", backend),
        cwd=ROOT,
        stdout=stdout,
        stderr=stderr,
        env=os.environ | (env or {}),
    )
    try:
        async with grpc.aio.insecure_channel(listen) as channel, aiohttp.ClientSession(f"http://{http}") as session:
            await asyncio.wait_for(channel.channel_ready(), 60)
            yield Serving(process, triton, service_pb2_grpc.GRPCInferenceServiceStub(channel), session)
            assert process.returncode is None
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await triton.stop()


@pytest.mark.skipif(LIBRARY is None, reason="no libfaketime: apt-get install libfaketime")
async def test_jumps_of_the_clock_end_no_request_and_are_survived_by_all_that_tells_the_time(
    tmp_path: Path, eventually: Any
) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
    env = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    audit = tmp_path / "audit.jsonl"
    with (tmp_path / "serve.err").open("wb") as log:
        about = {
            "audit_log": str(audit),
            "telemetry": {"logs": {"level": "debug"}},
            "models": {"identity": {"check_merging": False}},  # its requests would be counted with the others
        }
        async with serving(tmp_path / "fairlane.yaml", about, stdout=subprocess.DEVNULL, stderr=log, env=env) as served:
            await served.infer(0)
            years = set()
            for jump in ("+3650d", "-3650d", "+1h", "-1h", "+0"):
                served.triton.hold()
                over_the_jump = [asyncio.ensure_future(served.infer(n)) for n in range(40)]

                async def all_there() -> int:
                    state = json.loads(await served.get("/debug/snapshot"))
                    return int(state["queued"] + state["in_flight"])

                async with asyncio.timeout(60):
                    while await all_there() < 40:  # noqa: ASYNC110 - the state is another process's
                        await asyncio.sleep(0.01)
                offset.write_text(jump)
                load = service_pb2.RepositoryModelLoadRequest(model_name="identity")
                with pytest.raises(grpc.aio.AioRpcError):
                    await served.stub.RepositoryModelLoad(load, timeout=60)
                assert await all_there() == 40
                served.triton.release()
                await asyncio.gather(*over_the_jump)
                await served.infer(1)
                assert "fairlane_requests_total" in await served.get("/metrics")
                assert json.loads(await served.get("/debug/requests"))
                years.add(json.loads(audit.read_text().splitlines()[-1])["time"][:4])
            ended = json.loads(await served.get("/debug/snapshot"))["ended"]
            assert (ended["COMPLETED"], sum(ended.values())) == (206, 206)
            # The jumps were seen.
            assert len(years) >= 3


async def test_full_disk_under_logs_and_audit_stops_nothing(tmp_path: Path) -> None:
    with FULL.open("wb") as full:  # noqa: ASYNC230 - a device
        about = {
            "audit_log": "/dev/full",
            "telemetry": {"logs": {"level": "debug"}},
        }
        async with serving(tmp_path / "fairlane.yaml", about, stdout=subprocess.DEVNULL, stderr=full) as served:
            for n in range(20):
                await served.infer(n)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.stub.RepositoryModelLoad(
                    service_pb2.RepositoryModelLoadRequest(model_name="m"), timeout=60
                )
            # It was let in, its record in the audit log went nowhere, and the fake has no repository.
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert json.loads(await served.get("/debug/snapshot"))["ended"]["COMPLETED"] == 20


@pytest.mark.parametrize("kind", ["full", "broken pipe", "closed"])
async def test_standard_output_that_takes_nothing_stops_nothing(tmp_path: Path, kind: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with (tmp_path / "serve.err").open("wb") as log, FULL.open("wb") as full:  # noqa: ASYNC230 - a device
        try:
            stdout = {"full": full, "broken pipe": writing, "closed": None}[kind]
            async with serving(tmp_path / "fairlane.yaml", {}, stdout=stdout, stderr=log) as served:
                await served.infer(1)
        finally:
            os.close(writing)
