"""Merging changes no answer: random tensors of random types through Fairlane and a real Triton, byte for byte."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from scheduler.app import App
from scheduler.config import Config
from scheduler.triton.typed_contents import FIELDS
from tests.real_triton import ModelRepository, TritonFactory

DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
MAX_ROWS = 8


@pytest.fixture(scope="module")
def triton(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> str:
    repository = new_repository()
    for kind in (*DTYPES, "STRING"):
        repository.add_identity(kind.lower(), kind, extra=INVARIANT)
    address: str = triton_factory(repository).address.grpc
    return address


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Any], Any]]:
    """Run a coroutine on this module's one event loop: gRPC's own thread does not take to several."""
    with asyncio.Runner() as runner:
        yield runner.run


INVARIANT = 'dynamic_batching { }\nparameters { key: "batch_invariant" value { string_value: "true" } }'


@st.composite
def requests(draw: st.DrawFn) -> list[tuple[Any, bytes]]:
    """Requests of several tenants for one model, which may or may not fit together, each with its raw contents."""
    kind = draw(st.sampled_from([*DTYPES, "BYTES"]))
    columns = draw(st.integers(0, 5))
    made = []
    for _ in range(draw(st.integers(2, 12))):
        width = columns if draw(st.booleans()) else draw(st.integers(0, 5))
        shape = (draw(st.integers(1, 3)), width)
        if kind == "BYTES":
            # The embedded ONNX Runtime takes UTF-8 alone.
            words = draw(st.lists(st.text(max_size=9), min_size=shape[0] * width, max_size=shape[0] * width))
            array = np.array([word.encode() for word in words], dtype=object).reshape(shape)
            serialized = serialize_byte_tensor(array)
            raw = serialized.item() if serialized.size else b""
        else:
            array = draw(stn.arrays(DTYPES[kind], shape))
            raw = array.tobytes()
        request = service_pb2.ModelInferRequest(model_name="string" if kind == "BYTES" else kind.lower())
        request.inputs.add(name="IN", datatype=kind, shape=shape)
        if kind in FIELDS and draw(st.booleans()):
            request.inputs[0].contents.SetInParent()
            getattr(request.inputs[0].contents, FIELDS[kind]).extend(array.flatten().tolist())
        else:
            request.raw_input_contents.append(raw)
        if draw(st.booleans()):
            request.parameters["threshold"].int64_param = draw(st.integers(0, 1))
        made.append((request, raw))
    return made


async def send(triton: str, batches: list[list[tuple[Any, bytes]]]) -> int:
    """Send each list at once, check every answer; the batches that Triton ran."""
    config = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "backends": [{"name": "real", "grpc": triton}],
    }
    app = App(Config.model_validate(config))
    address = (await app.start()).grpc
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for batch in batches:
            answers = await asyncio.gather(
                *(
                    stub.ModelInfer(request, metadata=(("x-tenant-id", f"t{n % 3}"),), timeout=30)
                    for n, (request, _) in enumerate(batch)
                )
            )
            for (request, raw), answer in zip(batch, answers, strict=True):
                assert list(answer.outputs[0].shape) == list(request.inputs[0].shape)
                assert answer.outputs[0].datatype == request.inputs[0].datatype
                assert answer.raw_output_contents[0] == raw
        statistics = await stub.ModelStatistics(service_pb2.ModelStatisticsRequest())
    await app.stop()
    return sum(each.execution_count for each in statistics.model_stats)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(batches=st.lists(requests(), min_size=1, max_size=6))
def test_merged_answers_are_byte_for_byte_those_of_each_alone(triton: str, run: Any, batches: list[list[Any]]) -> None:
    run(send(triton, batches))


def number(typed: bool, **parameters: int) -> tuple[Any, bytes]:
    request = service_pb2.ModelInferRequest(model_name="int32")
    tensor = request.inputs.add(name="IN", datatype="INT32", shape=[1, 1])
    raw = np.int32(1).tobytes()
    if typed:
        tensor.contents.int_contents.append(1)
    else:
        request.raw_input_contents.append(raw)
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request, raw


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([number(typed=False)] * 64, id="raw"),
        pytest.param([number(typed=True)] * 64, id="typed"),
        pytest.param([number(typed=True), number(typed=False)] * 32, id="typed beside raw"),
        pytest.param([number(typed=False, threshold=5)] * 64, id="equal parameters"),
        pytest.param([number(typed=True, threshold=5), number(typed=False, threshold=5)] * 32, id="both"),
    ],
)
def test_the_requests_of_the_property_are_merged_at_all(triton: str, run: Any, sent: list[tuple[Any, bytes]]) -> None:
    before = run(send(triton, []))
    after = run(send(triton, [sent]))
    assert after - before < 64
