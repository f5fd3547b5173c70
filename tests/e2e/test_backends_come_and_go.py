"""Real tritonservers behind one name: its answer changes, and the configuration does, while requests go on."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

CALLERS = 8
LONG_S = 90


@pytest.fixture(scope="module")
def tritons(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> list[str]:
    addresses = []
    for _ in range(2):
        repository = new_repository()
        repository.add_identity("numbers", "INT64")
        addresses.append(triton_factory(repository).address.grpc)
    return addresses


async def test_no_request_is_lost_while_backends_come_and_go(
    tritons: list[str], seven: Callable[[str], Any], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tritons
    answer = [first]

    async def resolver(host: str, port: int) -> list[str]:
        assert (host, port) == ("triton.example", 8001)
        return list(answer)

    settings: dict[str, Any] = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "backends": [{"name": "pool", "grpc": "triton.example:8001", "resolve": "all", "resolve_s": 0.05}],
    }
    app = App(Config.model_validate(settings))
    monkeypatch.setattr(app._membership, "_resolver", resolver)
    address = (await app.start()).grpc
    answered, done = [0], asyncio.Event()

    def there() -> list[str]:
        return sorted(each.name for each in app.snapshot().backends)

    async def more() -> None:
        """Until a hundred further requests were answered."""
        until = answered[0] + 100
        await eventually(lambda: answered[0] >= until)

    async def call(stub: Any) -> None:
        while not done.is_set():
            reply = await stub.ModelInfer(seven("numbers"), timeout=LONG_S)
            assert int.from_bytes(reply.raw_output_contents[0], "little") == 7
            answered[0] += 1

    try:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as callers:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for _ in range(CALLERS):
                callers.create_task(call(stub))
            await more()
            for wanted in ([first, second], [second], [first], [first, second]):
                answer[:] = wanted
                await eventually(lambda wanted=wanted: there() == sorted(f"pool/{each}" for each in wanted))
                await more()
            app.reload(lambda: Config.model_validate(settings | {"backends": [{"name": "one", "grpc": second}]}))
            await eventually(lambda: there() == ["one"])
            await more()
            done.set()
        # Merged answers are checked now and then, by requests of the service's own.
        assert [name for name, count in app.snapshot().ended.items() if count] == ["COMPLETED"]
        for each in tritons:
            async with grpc.aio.insecure_channel(each) as direct:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(direct)
                (stats,) = (await stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="numbers"))).model_stats
                assert stats.inference_count > 0
    finally:
        await app.stop()
