"""A Python model reads the headers of a request, through Fairlane as at its embedded Triton."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import Addresses, App
from scheduler.config import Config

TELL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        # For each row what the request's parameters are, and how many rows it has.
        answers = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().shape[0]
            told = np.array([[request.parameters(), str(rows)]] * rows, dtype=object)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", told)]))
        return answers
"""
CONFIG = """
name: "tell" backend: "python" max_batch_size: 8
input [{ name: "IN" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "OUT" data_type: TYPE_STRING dims: [2] }]
instance_group [{ count: 1 kind: KIND_CPU }]
parameters { key: "batch_invariant" value { string_value: "true" } }
"""
OTHERS = (("x-other", "no"), ("x-priority", "background"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("forward") / "models"
    (folder / "tell" / "1").mkdir(parents=True)
    (folder / "tell" / "1" / "model.py").write_text(TELL)
    (folder / "tell" / "config.pbtxt").write_text(CONFIG)
    return folder


@pytest.fixture
async def addresses(models: Path) -> AsyncIterator[Addresses]:
    app = App(
        Config.model_validate(
            {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "model_repository": str(models),
                "forward_headers": ["x-user", "x-acme-*"],
            }
        )
    )
    yield await app.start()
    await app.stop()


def ask() -> Any:
    request = service_pb2.ModelInferRequest(model_name="tell")
    request.inputs.add(name="IN", datatype="INT32", shape=[1, 1])
    request.raw_input_contents.append(bytes(4))
    return request


def told(response: Any) -> tuple[dict[str, str], int]:
    """The parameters that the model saw, and the rows of the request in which it saw them."""
    raw, texts = response.raw_output_contents[0], []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        texts.append(raw[4:end].decode())
        raw = raw[end:]
    return json.loads(texts[0] or "{}"), int(texts[1])


async def test_headers_reach_the_model_as_at_triton_and_those_of_different_callers_never_meet(
    addresses: Addresses,
) -> None:
    assert addresses.triton is not None
    sent = (("x-user", "ann"), ("x-acme-team", "7 b"), *OTHERS)
    async with (
        grpc.aio.insecure_channel(addresses.grpc) as channel,
        grpc.aio.insecure_channel(addresses.triton) as direct_channel,
    ):
        through = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        direct = service_pb2_grpc.GRPCInferenceServiceStub(direct_channel)
        expected = {"x-user": "ann", "x-acme-team": "7 b"}
        for stub in (direct, through):
            assert told(await stub.ModelInfer(ask(), metadata=sent, timeout=60))[0] == expected
            (streamed,) = [each async for each in stub.ModelStreamInfer(iter([ask()]), metadata=sent, timeout=60)]
            seen, _ = told(streamed.infer_response)
            assert seen.items() >= expected.items()
            assert "x-other" not in seen
        users = [("ann", "bob", "cy")[n % 3] for n in range(90)]
        answers = await asyncio.gather(
            *(through.ModelInfer(ask(), metadata=(("x-user", user),), timeout=60) for user in users)
        )
    rows = []
    for user, answer in zip(users, answers, strict=True):
        seen, beside = told(answer)
        assert seen == {"x-user": user}
        rows.append(beside)
    assert max(rows) > 1  # of equal headers they ride together
