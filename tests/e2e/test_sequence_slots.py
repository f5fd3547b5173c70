"""More stateful sequences than the real Triton has slots for: those that have one go on, the others wait their turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

TOTAL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    '''Adds each value to its sequence's sum.'''

    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            value, start, name = (
                int(pb_utils.get_input_tensor_by_name(request, each).as_numpy().ravel()[0])
                for each in ("IN", "START", "CORRID")
            )
            self.sums[name] = value + (0 if start else self.sums.get(name, 0))  # an empty slot has the id 0
            out = pb_utils.Tensor("OUT", np.array([[self.sums[name]]], dtype=np.int32))
            answers.append(pb_utils.InferenceResponse([out]))
        return answers
"""
# One instance: two slots, and two places in flight. Triton waits longer for an idle sequence than this test may take.
CONFIG = """
name: "NAME" backend: "python" max_batch_size: ROWS
sequence_batching {
  max_sequence_idle_microseconds: 600000000
  control_input [
    { name: "START" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] },
    { name: "CORRID" control [{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }] }
  ]
  STRATEGY
}
input [{ name: "IN" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "OUT" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""
STRATEGIES = {"direct": (2, "direct { }"), "oldest": (8, "oldest { max_candidate_sequences: 2 }")}


@pytest.fixture(scope="module")
def triton(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> str:
    repository = new_repository()
    for name, (rows, strategy) in STRATEGIES.items():
        folder = repository.path / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.py").write_text(TOTAL)
        config = CONFIG.replace("NAME", name).replace("ROWS", str(rows)).replace("STRATEGY", strategy)
        (folder / "config.pbtxt").write_text(config)
    address: str = triton_factory(repository).address.grpc
    return address


@pytest.fixture
async def served(triton: str) -> AsyncIterator[Any]:
    """A Fairlane in front of it, and a stub of its service."""
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "backends": [{"name": "t", "grpc": triton}]}))
    channel = grpc.aio.insecure_channel((await app.start()).grpc)
    yield app, service_pb2_grpc.GRPCInferenceServiceStub(channel)
    await channel.close()
    await app.stop()


def step(model: str, sequence: int, value: int, *, start: bool = False, end: bool = False) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="IN", datatype="INT32", shape=[1, 1])
    request.raw_input_contents.append(np.array([value], dtype=np.int32).tobytes())
    request.parameters["sequence_id"].int64_param = sequence
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    return request


def value_of(response: Any) -> int:
    return int(np.frombuffer(response.raw_output_contents[0], dtype=np.int32)[0])


@pytest.mark.parametrize("model", STRATEGIES)
async def test_starts_beyond_the_slots_do_not_stop_the_sequences_that_have_one(
    served: Any, model: str, eventually: Any
) -> None:
    app, stub = served
    for sequence in (1, 2):
        assert value_of(await stub.ModelInfer(step(model, sequence, 10 * sequence, start=True))) == 10 * sequence
    # As many as Triton takes at a time of this model: were they sent, nothing else of it could be.
    beyond = [asyncio.ensure_future(stub.ModelInfer(step(model, n, n, start=True))) for n in (3, 4)]
    await eventually(lambda: app.snapshot().queued == 2)
    for sequence in (1, 2, 1, 2):
        await stub.ModelInfer(step(model, sequence, 1))
    late = stub.ModelInfer(step(model, 5, 5, start=True), timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await late
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    ends = [await stub.ModelInfer(step(model, sequence, 1, end=True)) for sequence in (1, 2)]
    assert [value_of(each) for each in ends] == [13, 23]
    assert [value_of(each) for each in await asyncio.gather(*beyond)] == [3, 4]
