"""Kinds of requests that had ridden alone, merged before a real Triton: answers are those of each alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

# OUT is IN plus the parameter `more`, a row at a time; SEEN is how many rows the request had.
PLUS = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            rows = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            more = np.float32(json.loads(request.parameters() or "{}").get("more", 0))
            seen = np.full((len(rows), 1), len(rows), dtype=np.int32)
            outputs = [pb_utils.Tensor("OUT", rows + more), pb_utils.Tensor("SEEN", seen)]
            answers.append(pb_utils.InferenceResponse(outputs))
        return answers
"""
CONFIG = """
name: "{name}" backend: "python" max_batch_size: 32
input [{{ name: "IN" data_type: TYPE_FP32 dims: [-1] {of_input} }}]
output [{{ name: "OUT" data_type: TYPE_FP32 dims: [-1] }}, {{ name: "SEEN" data_type: TYPE_INT32 dims: [1] }}]
dynamic_batching {{ }}
instance_group [{{ count: 1 kind: KIND_CPU }}]
"""


def add_python(repository: Path, name: str, source: str, config: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.py").write_text(source)
    (repository / name / "config.pbtxt").write_text(config)


@pytest.fixture(scope="module")
def triton(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> str:
    repository = new_repository()
    add_python(repository.path, "plus", PLUS, CONFIG.format(name="plus", of_input=""))
    ragged = CONFIG.format(name="ragged", of_input="allow_ragged_batch: true")
    add_python(repository.path, "ragged", PLUS, ragged)
    address: str = triton_factory(repository).address.grpc
    return address


@pytest.fixture
async def both(triton: str) -> AsyncIterator[tuple[Any, Any]]:
    """A stub at Triton, and one at Fairlane in front of it."""
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "backends": [{"name": "real", "grpc": triton}]}))
    ours = (await app.start()).grpc
    async with grpc.aio.insecure_channel(triton) as direct, grpc.aio.insecure_channel(ours) as through:
        yield tuple(service_pb2_grpc.GRPCInferenceServiceStub(each) for each in (direct, through))
    await app.stop()


def request_of(rows: list[list[float]], model: str = "plus", **parameters: float) -> Any:
    array = np.array(rows, dtype=np.float32)
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="IN", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    for name, value in parameters.items():
        request.parameters[name].double_param = value
    return request


async def answers_of(stub: Any, requests: list[Any]) -> list[Any]:
    return list(await asyncio.gather(*(stub.ModelInfer(request, timeout=60) for request in requests)))


def numbers(answer: Any) -> list[float]:
    found: list[float] = np.frombuffer(answer.raw_output_contents[0], dtype=np.float32).tolist()
    return found


def most_rows_seen(answers: list[Any]) -> int:
    return max(int(np.frombuffer(answer.raw_output_contents[1], dtype=np.int32).max()) for answer in answers)


async def test_a_model_gets_equal_parameters_once_and_uses_them_for_all_rows(both: tuple[Any, Any]) -> None:
    _, ours = both
    requests = [request_of([[n]], more=n % 2) for n in range(64)]
    answers = await answers_of(ours, requests)
    assert [numbers(answer) for answer in answers] == [[n + n % 2] for n in range(64)]
    assert most_rows_seen(answers) > 1


async def test_ragged_requests_of_equal_shapes_ride_together_and_others_apart(both: tuple[Any, Any]) -> None:
    direct, ours = both
    requests = [request_of([[float(n)] * (1 + n % 3)] * (1 + n % 2), "ragged") for n in range(64)]
    answers = await answers_of(ours, requests)
    alone = [await direct.ModelInfer(request) for request in requests]
    assert [numbers(answer) for answer in answers] == [numbers(answer) for answer in alone]
    assert [list(answer.outputs[0].shape) for answer in answers] == [list(each.inputs[0].shape) for each in requests]
    assert most_rows_seen(answers) > 2


CLOUD = """
name: "cloud" backend: "onnxruntime" max_batch_size: 32
input [{ name: "x" data_type: TYPE_FP32 dims: [3] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [3] }]
dynamic_batching { }
instance_group [{ count: 1 kind: KIND_CPU }]
"""


async def test_an_onnx_graph_whose_first_axis_is_points_is_found_out_and_its_clouds_are_answered_alone_then(
    start_triton: TritonFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["points", 3]) for name in "xy")
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "cloud", [x], [y]), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    (tmp_path / "cloud" / "1").mkdir(parents=True)
    onnx.save(model, tmp_path / "cloud" / "1" / "model.onnx")
    (tmp_path / "cloud" / "config.pbtxt").write_text(CLOUD)
    triton = start_triton(ModelRepository(tmp_path)).address.grpc
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "backends": [{"name": "real", "grpc": triton}]}))
    random = np.random.default_rng(0)
    clouds = [random.normal(place, 1, (4, 3)).astype(np.float32) for place in range(16)]
    requests = []
    for cloud in clouds:
        requests.append(service_pb2.ModelInferRequest(model_name="cloud", raw_input_contents=[cloud.tobytes()]))
        requests[-1].inputs.add(name="x", datatype="FP32", shape=cloud.shape)

    def wrong(answers: list[Any]) -> int:
        worst = [
            np.abs(np.array(numbers(answer)).reshape(4, 3) - (cloud - cloud.mean(axis=0))).max()
            for answer, cloud in zip(answers, clouds, strict=True)
        ]
        return sum(each > 1e-3 for each in worst)

    async with grpc.aio.insecure_channel((await app.start()).grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(3000):  # a check that was lucky is followed by the next one after two seconds
            if "requests ride alone from now on" in caplog.text:
                break
            await answers_of(stub, requests)
        assert "model cloud: a merged request was answered otherwise than alone: output y" in caplog.text
        assert [wrong(await answers_of(stub, requests)) for _ in range(3)] == [0] * 3
    await app.stop()
