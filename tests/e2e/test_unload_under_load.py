"""A model is unloaded from the real Triton under load: each request ends, and it is served again when it is back."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from tests.real_triton import ModelRepository, TritonFactory


async def test_model_unloaded_under_load_ends_every_request_and_others_are_served(
    models: ModelRepository,
    start_triton: TritonFactory,
    administered: Callable[..., Any],
    seven: Callable[[str], Any],
) -> None:
    models.add_identity("leaves", "INT64")
    models.add_identity("stays", "INT64")
    stub = await administered(start_triton(models).address.grpc)
    ended = {"leaves": Counter[str](), "stays": Counter[str]()}
    over = asyncio.Event()

    async def ask(model: str) -> str:
        request = seven(model)
        try:
            answer = await stub.ModelInfer(request, timeout=60)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        assert answer.raw_output_contents == request.raw_input_contents
        return "OK"

    async def worker(model: str) -> None:
        while not over.is_set():
            ended[model][await ask(model)] += 1

    async def until(model: str, code: str, count: int) -> None:
        count += ended[model][code]
        async with asyncio.timeout(60):
            while ended[model][code] < count:  # noqa: ASYNC110 - counted by every worker
                await asyncio.sleep(0.01)

    workers = [asyncio.ensure_future(worker(model)) for model in ("leaves", "stays") * 4]
    await until("leaves", "OK", 50)
    await stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="leaves"), timeout=60)
    await until("leaves", "NOT_FOUND", 20)
    await until("stays", "OK", 20)
    await stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="leaves"), timeout=60)
    await until("leaves", "OK", 50)
    over.set()
    await asyncio.gather(*workers)
    assert set(ended["stays"]) == {"OK"}
    # What was at Triton when the model went was answered, or says that it is not there.
    assert set(ended["leaves"]) <= {"OK", "NOT_FOUND", "UNAVAILABLE"}
