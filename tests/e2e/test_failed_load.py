"""A model that fails to load into a real Triton under a running scheduler: said why, and nobody else notices."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tests.real_triton import ModelRepository, TritonFactory

TRUNCATED = b"\x08\x0a no graph"


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_model_that_fails_to_load_is_told_of_and_others_are_served_meanwhile(
    models: ModelRepository,
    start_triton: TritonFactory,
    administered: Callable[..., Any],
    seven: Callable[[str], Any],
    eventually: Callable[..., Any],
) -> None:
    models.add_identity("stays", "INT64")
    stub = await administered(start_triton(models).address.grpc)
    ended: Counter[str] = Counter()
    over = asyncio.Event()

    async def worker() -> None:
        while not over.is_set():
            answer = await stub.ModelInfer(seven("stays"), timeout=60)
            ended["OK"] += answer.raw_output_contents == seven("stays").raw_input_contents

    async def load(model: str) -> None:
        await stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=model), timeout=60)

    async def served_on() -> None:
        count = ended["OK"] + 20
        await eventually(lambda: ended["OK"] >= count)

    workers = [asyncio.ensure_future(worker()) for _ in range(4)]
    await served_on()
    # One that never was there.
    broken = models.add_identity("broken", "INT64") / "1" / "model.onnx"
    whole = broken.read_bytes()
    broken.write_bytes(TRUNCATED)
    error = await refusal(load("broken"))
    assert error.code() is not grpc.StatusCode.UNKNOWN
    assert "broken" in str(error.details())
    await served_on()
    refused = await refusal(stub.ModelInfer(seven("broken"), timeout=60))
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert ("fairlane-reason", "MODEL_NOT_LOADED") in tuple(refused.trailing_metadata())
    assert "model broken is not loaded: Internal: ModelError" in str(refused.details())
    # One whose folder Triton cannot read, which its index tells nothing of.
    (models.path / "broken" / "config.pbtxt").rename(models.path / "config.pbtxt")
    (models.path / "broken" / "config.pbtxt").write_text("backend: [[[")
    await refusal(load("broken"))
    refused = await refusal(stub.ModelInfer(seven("broken"), timeout=60))
    assert ("fairlane-reason", "MODEL_NOT_LOADED") in tuple(refused.trailing_metadata())
    (models.path / "config.pbtxt").rename(models.path / "broken" / "config.pbtxt")
    # One that never was there, nor is.
    await refusal(load("absent"))
    assert (await refusal(stub.ModelInfer(seven("absent"), timeout=60))).code() is grpc.StatusCode.NOT_FOUND
    # The one that is served: Triton keeps what it has.
    served = models.path / "stays" / "1" / "model.onnx"
    served.write_bytes(TRUNCATED)
    assert "stays" in str((await refusal(load("stays"))).details())
    await served_on()
    # Repaired, it is served without a restart.
    broken.write_bytes(whole)
    await load("broken")
    answer = await stub.ModelInfer(seven("broken"), timeout=60)
    assert answer.raw_output_contents == seven("broken").raw_input_contents
    # What was wrong with it is over, also when it is unloaded.
    await stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="broken"), timeout=60)
    refused = await refusal(stub.ModelInfer(seven("broken"), timeout=60))
    assert refused.code() is grpc.StatusCode.NOT_FOUND
    over.set()
    await asyncio.gather(*workers)
