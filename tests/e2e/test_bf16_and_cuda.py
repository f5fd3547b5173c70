"""What takes a GPU elsewhere, without one: BF16 through a Python model, CUDA shared memory as Triton refuses it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fairlane
import grpc
import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

# numpy has no BF16: the tensor is handed on as it is, by DLPack.
IDENTITY = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, "IN") for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("OUT", each.to_dlpack())]) for each in tensors]
"""
CONFIG = """
name: "brain" backend: "python" max_batch_size: 8
input [{ name: "IN" data_type: TYPE_BF16 dims: [4] }]
output [{ name: "OUT" data_type: TYPE_BF16 dims: [4] }]
instance_group [{ count: 1 kind: KIND_CPU }]
parameters { key: "batch_invariant" value { string_value: "true" } }
"""


@pytest.fixture(scope="module")
def triton(triton_factory: TritonFactory, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("bf16") / "models"
    (folder / "brain" / "1").mkdir(parents=True)
    (folder / "brain" / "1" / "model.py").write_text(IDENTITY)
    (folder / "brain" / "config.pbtxt").write_text(CONFIG)
    address: str = triton_factory(ModelRepository(folder)).address.grpc
    return address


class Served:
    """A Fairlane in front of the real Triton, and stubs at both."""

    def __init__(self, app: App, address: str, through: grpc.aio.Channel, direct: grpc.aio.Channel) -> None:
        self.app = app
        self.address = address
        self.fairlane = service_pb2_grpc.GRPCInferenceServiceStub(through)
        self.direct = service_pb2_grpc.GRPCInferenceServiceStub(direct)


@pytest.fixture
async def served(triton: str) -> AsyncIterator[Served]:
    app = App(
        Config.model_validate(
            {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "backends": [{"name": "real", "grpc": triton}],
                "tenants": {"default": {"admin": True}},
            }
        )
    )
    address = (await app.start()).grpc
    async with grpc.aio.insecure_channel(address) as through, grpc.aio.insecure_channel(triton) as direct:
        yield Served(app, address, through, direct)
    await app.stop()


def bf16(values: Any) -> Any:
    """A request of rows of four: the upper halves of FP32 numbers."""
    array = np.array(values, dtype=np.float32)
    request = service_pb2.ModelInferRequest(model_name="brain")
    request.inputs.add(name="IN", datatype="BF16", shape=array.shape)
    request.raw_input_contents.append((array.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return request


async def test_bf16_rows_of_many_requests_come_back_bit_by_bit_as_from_triton(served: Served) -> None:
    requests = [bf16([[n, -n, 1 / (n + 1), 3.0e38]] * (1 + n % 3)) for n in range(30)]
    answers = await asyncio.gather(*(served.fairlane.ModelInfer(each, timeout=60) for each in requests))
    for request, answer in zip(requests, answers, strict=True):
        direct = await served.direct.ModelInfer(request, timeout=60)
        assert answer.outputs == direct.outputs
        assert answer.raw_output_contents == direct.raw_output_contents == request.raw_input_contents
    (model,) = (await served.direct.ModelStatistics(service_pb2.ModelStatisticsRequest(name="brain"))).model_stats
    # Thirty by Fairlane, in fewer executions, and thirty alone.
    assert model.execution_count < 60


async def test_bf16_by_the_sdk_through_fairlane_and_at_triton(served: Served, triton: str) -> None:
    rows = np.array([[1.5, -2, 3.0e38, np.inf]], ml_dtypes.bfloat16)
    for address in (served.address, triton):
        async with fairlane.aio.Client(address) as client:
            answer = (await client.infer("brain", {"IN": rows}))["OUT"]
        assert answer.dtype == ml_dtypes.bfloat16
        assert answer.tobytes() == rows.tobytes()


async def test_bf16_bytes_that_do_not_fit_the_shape_are_refused_before_triton(served: Served) -> None:
    request = bf16([[1, 2, 3, 4]])
    request.raw_input_contents[0] += b"\0\0"
    with pytest.raises(grpc.aio.AioRpcError, match="IN") as caught:
        await served.fairlane.ModelInfer(request, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def told(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_cuda_shared_memory_is_answered_as_triton_without_a_gpu_answers_it(served: Served) -> None:
    register = service_pb2.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"\0" * 64, device_id=0, byte_size=64)
    direct = await told(served.direct.CudaSharedMemoryRegister(register, timeout=60))
    assert direct == (grpc.StatusCode.INVALID_ARGUMENT, "failed to register shared memory region: invalid args")
    assert await told(served.fairlane.CudaSharedMemoryRegister(register, timeout=60)) == direct
    status = service_pb2.CudaSharedMemoryStatusRequest()
    assert await served.fairlane.CudaSharedMemoryStatus(status) == await served.direct.CudaSharedMemoryStatus(status)
    unregister = service_pb2.CudaSharedMemoryUnregisterRequest(name="r")
    unregistered = await served.fairlane.CudaSharedMemoryUnregister(unregister)
    assert unregistered == await served.direct.CudaSharedMemoryUnregister(unregister)


async def test_request_that_names_a_cuda_region_fails_alone_as_at_triton(served: Served) -> None:
    request = bf16([[1, 2, 3, 4]])
    del request.raw_input_contents[:]
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 8
    code, message = await told(served.direct.ModelInfer(request, timeout=60))
    assert await told(served.fairlane.ModelInfer(request, timeout=60)) == (code, f"model brain: {message}")
    assert (await served.fairlane.ModelInfer(bf16([[1, 2, 3, 4]]), timeout=60)).model_name == "brain"
