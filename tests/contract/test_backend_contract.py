"""What Fairlane relies on in a Triton, asked of the real one and of the fake alike."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.triton.fake import FakeModel, FakeTriton
from scheduler.triton.merge import merge, split
from scheduler.triton.spec import spec_from_config
from tests.real_triton import ModelRepository, TritonFactory


@pytest.fixture(scope="module")
def real_address(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> str:
    """A real tritonserver with the models of the fake below."""
    repository = new_repository()
    repository.add_identity("identity", "INT64", ends=("INPUT", "OUTPUT"), extra=TWO_INSTANCES)
    repository.add_identity("unbatched", "INT64", rows=0, dims=[2], ends=("INPUT", "OUTPUT"))
    address: str = triton_factory(repository).address.grpc
    return address


TWO_INSTANCES = "dynamic_batching { }\ninstance_group [{ count: 2 kind: KIND_CPU }]"


@pytest.fixture(params=["fake", "real"])
async def stub(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A stub at each implementation in turn."""
    fake: FakeTriton | None = None
    if request.param == "fake":
        fake = FakeTriton([FakeModel("identity", instances=2), FakeModel("unbatched", max_batch_size=0, dims=(2,))])
        address = await fake.start()
    else:
        address = request.getfixturevalue("real_address")
    async with grpc.aio.insecure_channel(address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)
    if fake is not None:
        await fake.stop()


def message(rows: list[Any], model: str = "identity", **about: Any) -> Any:
    array = np.array(rows, dtype=np.int64)
    request = service_pb2.ModelInferRequest(model_name=model, **about)
    request.inputs.add(name="INPUT", datatype="INT64", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request


def rows_of(response: Any) -> list[Any]:
    array = np.frombuffer(response.raw_output_contents[0], dtype=np.int64)
    rows: list[Any] = array.reshape(tuple(response.outputs[0].shape)).tolist()
    return rows


async def test_is_live_and_tells_its_ready_models(stub: Any) -> None:
    assert (await stub.ServerLive(service_pb2.ServerLiveRequest())).live
    assert (await stub.ServerReady(service_pb2.ServerReadyRequest())).ready
    index = await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True))
    assert {(model.name, model.version, model.state) for model in index.models} == {
        ("identity", "1", "READY"),
        ("unbatched", "1", "READY"),
    }
    assert (await stub.ModelReady(service_pb2.ModelReadyRequest(name="identity"))).ready
    assert not (await stub.ModelReady(service_pb2.ModelReadyRequest(name="nope"))).ready


async def test_config_gives_the_spec_that_requests_are_checked_by(stub: Any) -> None:
    reply = await stub.ModelConfig(service_pb2.ModelConfigRequest(name="identity"))
    spec = spec_from_config(reply.config, ("1",))
    assert (spec.name, spec.max_batch_size, spec.instances, spec.mergeable) == ("identity", 8, 2, True)
    assert (spec.inputs["INPUT"].datatype, spec.inputs["INPUT"].dims) == ("INT64", (-1,))
    unbatched = spec_from_config(
        (await stub.ModelConfig(service_pb2.ModelConfigRequest(name="unbatched"))).config, ("1",)
    )
    assert (unbatched.max_batch_size, unbatched.mergeable) == (0, False)


async def test_metadata_names_inputs_and_outputs(stub: Any) -> None:
    metadata = await stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="identity"))
    assert (metadata.inputs[0].name, metadata.inputs[0].datatype, list(metadata.inputs[0].shape)) == (
        "INPUT",
        "INT64",
        [-1, -1],
    )
    assert metadata.outputs[0].name == "OUTPUT"


async def test_answers_in_raw_contents_and_echoes_the_id(stub: Any) -> None:
    answer = await stub.ModelInfer(message([[1, 2], [3, 4]], id="abc"))
    assert rows_of(answer) == [[1, 2], [3, 4]]
    assert (answer.model_name, answer.model_version, answer.id) == ("identity", "1", "abc")
    assert (answer.outputs[0].name, answer.outputs[0].datatype) == ("OUTPUT", "INT64")
    assert rows_of(await stub.ModelInfer(message([5, 6], model="unbatched"))) == [5, 6]


async def test_answers_typed_contents_as_raw_ones(stub: Any) -> None:
    raw = message([[1, -2], [3, 2**62]])
    typed = service_pb2.ModelInferRequest()
    typed.CopyFrom(raw)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.int64_contents.extend([1, -2, 3, 2**62])
    assert await stub.ModelInfer(typed) == await stub.ModelInfer(raw)


async def test_merged_rows_come_back_in_order(stub: Any) -> None:
    requests = [message([[1, 1]]), message([[2, 2], [3, 3]]), message([[4, 4]])]
    rows = [1, 2, 1]
    answers = split(await stub.ModelInfer(merge(requests, rows)), requests, rows)
    assert [rows_of(answer) for answer in answers] == [[[1, 1]], [[2, 2], [3, 3]], [[4, 4]]]


@pytest.mark.parametrize("about", [{"model": "nope"}, {"model_version": "7"}])
async def test_unknown_model_or_version_is_an_error(stub: Any, about: dict[str, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelInfer(message([[1]], **about))
    # Triton answers an unknown version with UNAVAILABLE or NOT_FOUND, by release; Fairlane does not rely on which.
    assert caught.value.code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE}
    assert "unknown model" in str(caught.value.details())


async def test_config_of_an_unknown_model_is_not_found(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ModelConfig(service_pb2.ModelConfigRequest(name="nope"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
