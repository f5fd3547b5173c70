"""Stopping under load: a process told to end, and two schedulers restarted one after the other."""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from scheduler.triton.fake import FakeModel, FakeTriton
from tests.serving import serve_process

# What a client needs that is to notice nothing: retries of UNAVAILABLE, and an eye on gRPC health.
RETRYING = {
    "healthCheckConfig": {"serviceName": ""},
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def request_of(value: int) -> Any:
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="INPUT", datatype="INT64", shape=[1, 1])
    request.raw_input_contents.append(np.int64(value).tobytes())
    return request


def value_of(response: Any) -> int:
    return int(np.frombuffer(response.raw_output_contents[0], dtype=np.int64)[0])


@pytest.fixture
async def address_of_triton() -> AsyncIterator[tuple[FakeTriton, str]]:
    fake = FakeTriton([FakeModel("identity")])
    address = await fake.start()
    yield fake, address
    fake.release()
    await fake.stop()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - what is watched is another process
            await asyncio.sleep(0.01)


async def test_told_to_end_it_finishes_what_it_accepted_and_exits_with_zero(
    address_of_triton: tuple[FakeTriton, str], tmp_path: Path
) -> None:
    triton, backend = address_of_triton
    async with (
        serve_process(tmp_path / "serve.err", "--backend", backend) as serving,
        grpc.aio.insecure_channel(serving.grpc) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        triton.hold()
        accepted = [stub.ModelInfer(request_of(n), timeout=30) for n in range(10)]
        async with aiohttp.ClientSession(serving.http) as session:

            async def told(path: str) -> tuple[int, Any]:
                async with session.get(path) as reply:
                    return reply.status, await reply.text()

            async def all_accepted() -> bool:
                return _accepted(json.loads((await told("/debug/snapshot"))[1])) == 10

            async def not_ready() -> bool:
                return (await told("/readyz"))[0] == 503

            await until(all_accepted)
            serving.end()
            await until(not_ready)
        assert not (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request_of(99))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        trailers = dict(tuple(caught.value.trailing_metadata()))
        assert trailers["fairlane-reason"] == "DRAINING"
        assert int(trailers["grpc-retry-pushback-ms"]) > 0
        triton.release()
        assert [value_of(await call) for call in accepted] == list(range(10))


def _accepted(snapshot: Any) -> int:
    return int(snapshot["queued"] + snapshot["in_flight"])


async def test_told_to_end_again_and_again_it_still_exits_with_zero(
    address_of_triton: tuple[FakeTriton, str], tmp_path: Path
) -> None:
    _, backend = address_of_triton
    async with serve_process(tmp_path / "serve.err", "--backend", backend) as serving:
        serving.end()
        while serving.process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGINT):
                with contextlib.suppress(ProcessLookupError):
                    serving.process.send_signal(number)
            await asyncio.sleep(0.001)
    # What leaves the process in another way than with 0 has failed there.


async def test_rolling_restart_of_two_schedulers_behind_one_client_loses_nothing(
    address_of_triton: tuple[FakeTriton, str], eventually: Any
) -> None:
    _, backend = address_of_triton

    async def start(listen: str) -> tuple[App, str]:
        config = {
            "listen": {"grpc": listen, "http": "127.0.0.1:0"},
            "backends": [{"name": "fake", "grpc": backend}],
            "limits": {"drain_s": 10},
        }
        app = App(Config.model_validate(config))
        return app, (await app.start()).grpc

    apps = {address: app for app, address in [await start("127.0.0.1:0"), await start("127.0.0.1:0")]}
    options = [("grpc.service_config", json.dumps(RETRYING)), ("grpc.max_reconnect_backoff_ms", 100)]
    over = asyncio.Event()
    sent = answered = 0

    async def worker(stub: Any) -> None:
        nonlocal sent, answered
        while not over.is_set():
            sent += 1
            value = sent
            assert value_of(await stub.ModelInfer(request_of(value), timeout=30)) == value
            answered += 1

    async with grpc.aio.insecure_channel(f"ipv4:{','.join(apps)}", options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        workers = [asyncio.ensure_future(worker(stub)) for _ in range(16)]
        for address in list(apps):
            goal = sent + 200
            await eventually(lambda goal=goal: sent >= goal)
            assert await apps[address].stop()
            goal = sent + 200
            await eventually(lambda goal=goal: sent >= goal)
            apps[address], _ = await start(address)
        over.set()
        await asyncio.gather(*workers)
    for app in apps.values():
        await app.stop()
    assert answered == sent
