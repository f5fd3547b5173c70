"""Sentences of unlike lengths as one batch of the real minilm: each is answered as alone, but for the last bits."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

MINILM = Path(__file__).parents[2] / "model_repository" / "minilm"
WORDS = (1996, 3899, 7777, 2006, 1037, 13523, 2307, 4937, 3185, 2103)


@pytest.fixture(scope="module")
def triton(triton_factory: TritonFactory, tmp_path_factory: pytest.TempPathFactory) -> str:
    repository = ModelRepository(tmp_path_factory.mktemp("padded"))
    shutil.copytree(MINILM, repository.path / "minilm")
    address: str = triton_factory(repository).address.grpc
    return address


@pytest.fixture
async def stub(triton: str) -> AsyncIterator[Any]:
    """Fairlane in front of it, with padding."""
    settings = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "backends": [{"name": "real", "grpc": triton}],
        "models": {"minilm": {"pad": {"axis": 1, "mask": "attention_mask"}}},
    }
    app = App(Config.model_validate(settings))
    async with grpc.aio.insecure_channel((await app.start()).grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)
    await app.stop()


def sentence(length: int, place: int) -> Any:
    """Of so many tokens, the first and the last of which are minilm's own."""
    random = np.random.default_rng(place)
    ids = np.array([[101, *random.choice(WORDS, length - 2), 102]], dtype=np.int64)
    request = service_pb2.ModelInferRequest(model_name="minilm")
    for name, array in (("input_ids", ids), ("attention_mask", np.ones_like(ids))):
        request.inputs.add(name=name, datatype="INT64", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def vector(answer: Any) -> Any:
    return np.frombuffer(answer.raw_output_contents[0], dtype=np.float32)


async def test_padded_sentences_are_answered_as_alone_within_the_cards_figure(stub: Any) -> None:
    requests = [sentence(3 + place % 30, place) for place in range(96)]
    alone = [vector(await stub.ModelInfer(request)) for request in requests]
    before = (await stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="minilm"))).model_stats[0]
    answers = await asyncio.gather(*(stub.ModelInfer(request, timeout=60) for request in requests))
    after = (await stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="minilm"))).model_stats[0]
    cosines = [float(vector(answer) @ other) for answer, other in zip(answers, alone, strict=True)]
    assert min(cosines) >= 0.9999
    # Of 30 lengths hardly two are alike in what waits at a time: three buckets are.
    assert after.execution_count - before.execution_count < 48
