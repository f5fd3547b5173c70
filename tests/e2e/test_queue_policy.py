"""The queue policy of a model's config.pbtxt through Fairlane, on a real Triton: who is refused, when and why."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

# It begins a request when it may: while there is a file beside it that says so.
HELD = """
import time
from pathlib import Path
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.go = Path(args["model_repository"]) / "go"

    def execute(self, requests):
        while not self.go.exists():
            time.sleep(0.005)
        return [pb_utils.InferenceResponse([pb_utils.get_input_tensor_by_name(each, "X")]) for each in requests]
"""
CONFIG = """
name: "held" backend: "python" max_batch_size: 1
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
dynamic_batching { default_queue_policy {
  timeout_action: REJECT default_timeout_microseconds: 400000 max_queue_size: 4
} }
instance_group [{ count: 1 kind: KIND_CPU }]
"""


async def ended(stub: Any) -> str:
    request = service_pb2.ModelInferRequest(model_name="held", raw_input_contents=[bytes(4)])
    request.inputs.add(name="X", datatype="FP32", shape=[1, 1])
    try:
        await stub.ModelInfer(request, timeout=60)
    except grpc.aio.AioRpcError as error:
        trailers = dict(tuple(error.trailing_metadata() or ()))
        assert int(trailers["grpc-retry-pushback-ms"]) > 0
        return f"{error.code().name} {trailers['fairlane-reason']}"
    return "answered"


async def test_of_twenty_at_once_one_runs_four_wait_and_time_out_and_the_rest_is_refused(
    start_triton: TritonFactory, tmp_path: Path
) -> None:
    repository = ModelRepository(tmp_path)
    (tmp_path / "held" / "1").mkdir(parents=True)
    (tmp_path / "held" / "1" / "model.py").write_text(HELD)
    (tmp_path / "held" / "config.pbtxt").write_text(CONFIG)
    triton = start_triton(repository).address.grpc
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "backends": [{"name": "real", "grpc": triton}]}))
    async with grpc.aio.insecure_channel((await app.start()).grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = [asyncio.create_task(ended(stub)) for _ in range(20)]
        waiting = set(calls)
        while len(waiting) > 2:  # one runs, and one waits in Triton's own queue, until the model goes on
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (tmp_path / "held" / "go").touch()
        outcomes = Counter(await asyncio.gather(*calls))
    await app.stop()
    assert outcomes == {"RESOURCE_EXHAUSTED QUEUE_FULL": 15, "UNAVAILABLE QUEUE_TIMEOUT": 4, "answered": 1}
