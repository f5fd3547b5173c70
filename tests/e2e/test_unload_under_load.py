"""A model is unloaded from the real Triton under load: each request ends, and it is served again when it is back."""

import asyncio
from collections import Counter

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory


async def test_model_unloaded_under_load_ends_every_request_and_others_are_served(
    models: ModelRepository, start_triton: TritonFactory
) -> None:
    models.add_identity("leaves", "INT64")
    models.add_identity("stays", "INT64")
    backend = start_triton(models).address.grpc
    app = App(
        Config.model_validate(
            {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "backends": [{"name": "real", "grpc": backend}],
                "tenants": {"default": {"admin": True}},
            }
        )
    )
    address = (await app.start()).grpc
    ended = {"leaves": Counter[str](), "stays": Counter[str]()}
    over = asyncio.Event()
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ask(model: str) -> str:
            request = service_pb2.ModelInferRequest(model_name=model)
            request.inputs.add(name="IN", datatype="INT64", shape=[1, 1])
            request.raw_input_contents.append(np.array([7], dtype=np.int64).tobytes())
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
    await app.stop()
    assert set(ended["stays"]) == {"OK"}
    # What was at Triton when the model went was answered, or says that it is not there.
    assert set(ended["leaves"]) <= {"OK", "NOT_FOUND", "UNAVAILABLE"}
