"""A stock `tritonclient.grpc`, sync and asyncio, pointed at Fairlane in front of a real tritonserver."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as sync_client
import tritonclient.grpc.aio as aio_client
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory
from tests.wires import WIRES


@pytest.fixture(scope="module")
def triton_address(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> str:
    repository = new_repository()
    repository.add_arithmetic()
    repository.add_embedding()
    repository.add_identity("text", "STRING")
    address: str = triton_factory(repository).address.grpc
    return address


async def start(triton: str, wire: str = "auto", **settings: Any) -> tuple[App, str]:
    config = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "wire": wire},
        "backends": [{"name": "real", "grpc": triton}],
        "limits": {"drain_s": 5},
    }
    app = App(Config.model_validate(config | settings))
    return app, (await app.start()).grpc


@pytest.fixture(params=WIRES)
async def address(triton_address: str, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    app, grpc_address = await start(triton_address, request.param)
    yield grpc_address
    await app.stop()


def arithmetic_inputs(module: Any, rows: int, value: float) -> list[Any]:
    array = np.full((rows, 4), value, dtype=np.float32)
    inputs = [module.InferInput(name, array.shape, "FP32") for name in ("A", "B")]
    for each in inputs:
        each.set_data_from_numpy(array)
    return inputs


def use_sync_client(address: str) -> None:
    with sync_client.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("arithmetic")
        assert not client.is_model_ready("nope")
        assert client.get_model_metadata("arithmetic").outputs[0].name == "SUM"
        assert client.get_model_config("arithmetic").config.max_batch_size == 8
        assert {model.name for model in client.get_model_repository_index().models} == {
            "arithmetic",
            "embedding",
            "text",
        }
        result = client.infer(
            "arithmetic", arithmetic_inputs(sync_client, 3, 2.0), request_id="r1", priority=1, timeout=5_000_000
        )
        assert result.get_response().id == "r1"
        np.testing.assert_array_equal(result.as_numpy("SUM"), np.full((3, 4), 4.0))
        only = client.infer(
            "arithmetic",
            arithmetic_inputs(sync_client, 1, 2.0),
            outputs=[sync_client.InferRequestedOutput("DIFFERENCE")],
        )
        assert [output.name for output in only.get_response().outputs] == ["DIFFERENCE"]
        words = np.array([["cat", ""], ["sofa", "é"]], dtype=object)
        text = sync_client.InferInput("IN", words.shape, "BYTES")
        text.set_data_from_numpy(words)
        expected = [[word.encode() for word in row] for row in words]
        assert client.infer("text", [text]).as_numpy("OUT").tolist() == expected
        with pytest.raises(InferenceServerException, match="expected a batch of 1 to 8, got 9") as caught:
            client.infer("arithmetic", arithmetic_inputs(sync_client, 9, 1.0))
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


async def test_sync_client_works_unchanged(address: str) -> None:
    await asyncio.to_thread(use_sync_client, address)


async def test_aio_client_works_unchanged_and_merged_answers_are_each_ones_own(address: str) -> None:
    async with aio_client.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        results = await asyncio.gather(
            *(client.infer("arithmetic", arithmetic_inputs(aio_client, n % 3 + 1, float(n))) for n in range(64))
        )
        for number, result in enumerate(results):
            np.testing.assert_array_equal(result.as_numpy("SUM"), np.full((number % 3 + 1, 4), 2.0 * number))


async def test_bad_token_fails_only_its_own_request(address: str) -> None:
    def tokens(value: int) -> list[Any]:
        each = aio_client.InferInput("IDS", [1, 2], "INT64")
        each.set_data_from_numpy(np.array([[value, 1]], dtype=np.int64))
        return [each]

    async with aio_client.InferenceServerClient(address) as client:
        values = [99 if n % 10 == 5 else n % 10 for n in range(40)]
        answers = await asyncio.gather(*(client.infer("embedding", tokens(v)) for v in values), return_exceptions=True)
    for value, answer in zip(values, answers, strict=True):
        if value == 99:
            assert isinstance(answer, InferenceServerException)
            assert "embedding" in str(answer)
        else:
            assert answer.as_numpy("VECTORS").tolist() == [[[value, 10 * value], [1, 10]]]


async def test_truncated_string_is_refused_before_it_reaches_triton(address: str) -> None:
    request = service_pb2.ModelInferRequest(model_name="text")
    request.inputs.add(name="IN", datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(b"\xff\x00\x00\x00short")
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "input IN" in caught.value.details()
    assert "the data end within element 0" in caught.value.details()


class CountingRelay(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Stands between Fairlane and the real Triton, and counts the marked rows that are there at a time."""

    MARK = 1.0

    def __init__(self, triton: str) -> None:
        self._channel = grpc.aio.insecure_channel(triton)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._server = grpc.aio.server()
        self.marked = 0
        self.most_marked = 0

    async def start(self) -> str:
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(None)
        await self._channel.close()

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        marked = int((np.frombuffer(request.raw_input_contents[0], dtype=np.float32)[::4] == self.MARK).sum())
        self.marked += marked
        self.most_marked = max(self.most_marked, self.marked)
        try:
            return await self._stub.ModelInfer(request)
        finally:
            self.marked -= marked

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._stub.ServerLive(request)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._stub.RepositoryIndex(request)

    async def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._stub.ModelConfig(request)


@pytest.mark.parametrize(("cap", "most"), [(2, 2), (64, None)])
async def test_tenant_capped_at_two_never_has_more_at_the_real_triton(
    triton_address: str, cap: int, most: int | None
) -> None:
    relay = CountingRelay(triton_address)
    # The merge check asks a row again as Fairlane's own request: it counts against no tenant, so it stays out here.
    app, address = await start(
        await relay.start(),
        tenants={"capped": {"max_in_flight": cap}},
        models={"arithmetic": {"check_merging": False}},
    )

    async def send(client: Any, value: float, tenant: str) -> None:
        result = await client.infer(
            "arithmetic", arithmetic_inputs(aio_client, 1, value), headers={"x-tenant-id": tenant}
        )
        np.testing.assert_array_equal(result.as_numpy("SUM"), np.full((1, 4), 2 * value))

    async with aio_client.InferenceServerClient(address) as client:
        calls = [send(client, CountingRelay.MARK, "capped") for _ in range(60)]
        calls += [send(client, 5.0, "other") for _ in range(60)]
        await asyncio.gather(*calls)
    await app.stop()
    await relay.stop()
    # Without the cap the same traffic has more there at a time, so the count can tell the difference.
    if most is None:
        assert relay.most_marked > 2
    else:
        assert relay.most_marked == most
