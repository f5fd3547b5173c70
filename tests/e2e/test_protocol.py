"""Every RPC of Triton's protocol through Fairlane, in front of real tritonservers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as aio_client
from aiohttp import ClientSession
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

REPEAT = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    '''Answers n times with 0 .. n-1; n = 13 is an error.'''

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            n = int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().ravel()[0])
            if n == 13:
                sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("thirteen")))
            else:
                for i in range(n):
                    if sender.is_cancelled():
                        break
                    out = pb_utils.Tensor("OUT", np.array([i], dtype=np.int32))
                    sender.send(pb_utils.InferenceResponse([out]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""
REPEAT_CONFIG = """
name: "repeat" backend: "python" max_batch_size: 0
model_transaction_policy { decoupled: true }
input [{ name: "IN" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "OUT" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""
TOTAL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    '''Appends each value to its sequence, and answers with the sequence as a number: 1, 12, 123.'''

    def initialize(self, args):
        self.total = 0

    def execute(self, requests):
        answers = []
        for request in requests:
            value = int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().ravel()[0])
            start = int(pb_utils.get_input_tensor_by_name(request, "START").as_numpy().ravel()[0])
            self.total = value if start else self.total * 10 + value
            out = pb_utils.Tensor("OUT", np.array([[self.total]], dtype=np.int32))
            answers.append(pb_utils.InferenceResponse([out]))
        return answers
"""
TOTAL_CONFIG = """
name: "total" backend: "python" max_batch_size: 1
sequence_batching {
  control_input [{ name: "START" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }]
}
input [{ name: "IN" data_type: TYPE_INT32 dims: [1] }]
output [{ name: "OUT" data_type: TYPE_INT32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""


def add_python(repository: ModelRepository, name: str, code: str, config: str) -> None:
    folder: Path = repository.path / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(code)
    (folder / "config.pbtxt").write_text(config)


def new_triton(factory: TritonFactory, repository: ModelRepository) -> str:
    repository.add_identity("numbers", "INT32")
    repository.add_identity("text", "STRING")
    repository.add_identity("halves", "FP16")
    repository.add_embedding()
    add_python(repository, "repeat", REPEAT, REPEAT_CONFIG)
    add_python(repository, "total", TOTAL, TOTAL_CONFIG)
    address: str = factory(repository).address.grpc
    return address


@pytest.fixture(scope="module")
def tritons(triton_factory: TritonFactory, new_repository: Callable[[], ModelRepository]) -> list[str]:
    return [new_triton(triton_factory, new_repository()) for _ in range(2)]


@pytest.fixture
async def start(tritons: list[str]) -> AsyncIterator[Callable[..., Any]]:
    """`await start(backends=1, **settings)`: the address of a Fairlane in front of so many."""
    apps = []

    async def begin(backends: int = 1, addresses: Sequence[str] = (), **settings: Any) -> str:
        config = {
            "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
            "backends": [
                {"name": f"t{n}", "grpc": address} for n, address in enumerate(addresses or tritons[:backends])
            ],
        }
        app = App(Config.model_validate(config | settings))
        apps.append(app)
        return (await app.start()).grpc

    yield begin
    for app in apps:
        await app.stop()


@pytest.fixture
async def stub_of() -> AsyncIterator[Callable[[str], Any]]:
    channels = []

    def make(address: str) -> Any:
        channels.append(grpc.aio.insecure_channel(address))
        return service_pb2_grpc.GRPCInferenceServiceStub(channels[-1])

    yield make
    for channel in channels:
        await channel.close()


def message(model: str, value: int, shape: tuple[int, ...], **parameters: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, id=f"{model}-{value}")
    request.inputs.add(name="IN", datatype="INT32", shape=shape)
    request.raw_input_contents.append(np.full(shape, value, dtype=np.int32).tobytes())
    for key, each in parameters.items():
        kind = "bool_param" if isinstance(each, bool) else "int64_param"
        setattr(request.parameters[key], kind, each)
    return request


def value_of(response: Any) -> int:
    return int(np.frombuffer(response.infer_response.raw_output_contents[0], dtype=np.int32)[0])


async def responses_to(stub: Any, requests: list[Any], **options: Any) -> list[Any]:
    return [response async for response in stub.ModelStreamInfer(iter(requests), timeout=30, **options)]


async def streamed_alike(stubs: list[Any], requests: list[Any]) -> list[Any]:
    """The responses, which must be the same from every server."""
    first, *others = [await responses_to(stub, requests) for stub in stubs]
    for other in others:
        assert other == first
    return first


async def test_stream_answers_as_triton_does_and_in_order(start: Any, stub_of: Any, tritons: list[str]) -> None:
    stubs = [stub_of(tritons[0]), stub_of(await start())]
    requests = [message("numbers", n, (n % 3 + 1, 2)) for n in range(40)]
    responses = await streamed_alike(stubs, requests)
    assert [value_of(response) for response in responses] == list(range(40))


async def test_decoupled_model_streams_all_its_responses(start: Any, stub_of: Any, tritons: list[str]) -> None:
    stubs = [stub_of(tritons[0]), stub_of(await start())]
    assert [value_of(each) for each in await streamed_alike(stubs, [message("repeat", 5, (1,))])] == [0, 1, 2, 3, 4]
    empty_final = message("repeat", 2, (1,), triton_enable_empty_final_response=True)
    with_final = await streamed_alike(stubs, [empty_final])
    finals = [each.infer_response.parameters["triton_final_response"].bool_param for each in with_final]
    assert finals == [False, False, True]
    assert await streamed_alike(stubs, [message("repeat", 0, (1,))]) == []
    (refused,) = await responses_to(stubs[1], [message("repeat", 1, (1,), triton_enable_empty_final_response=1)])
    assert "expected bool_param" in refused.error_message
    both = await responses_to(stubs[1], [message("repeat", 3, (1,)), message("numbers", 7, (1, 1))])
    assert sorted(value_of(each) for each in both) == [0, 1, 2, 7]


async def test_time_to_the_first_response_is_measured_by_class_and_model(stub_of: Any, tritons: list[str]) -> None:
    app = App(
        Config.model_validate(
            {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "backends": [{"name": "t", "grpc": tritons[0]}],
            }
        )
    )
    addresses = await app.start()
    try:
        stub = stub_of(addresses.grpc)
        both = [message("repeat", 4, (1,)), message("repeat", 2, (1,))]
        assert len(await responses_to(stub, both, metadata=(("x-priority", "background"),))) == 6
        assert await responses_to(stub, [message("repeat", 0, (1,))]) == []
        async with ClientSession(f"http://{addresses.http}") as session, session.get("/metrics") as reply:
            text = await reply.text()
    finally:
        await app.stop()
    counts = [line for line in text.splitlines() if line.startswith("fairlane_first_response_seconds_count")]
    assert counts == ['fairlane_first_response_seconds_count{class="background",model="repeat"} 2.0']


async def test_decoupled_model_is_refused_by_model_infer_as_in_triton(
    start: Any, stub_of: Any, tritons: list[str]
) -> None:
    for stub in (stub_of(tritons[0]), stub_of(await start())):
        with pytest.raises(grpc.aio.AioRpcError, match="decoupled") as caught:
            await stub.ModelInfer(message("repeat", 1, (1,)))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_errors_on_a_stream_come_in_their_place(start: Any, stub_of: Any) -> None:
    stub = stub_of(await start())
    bad = message("numbers", 2, (9, 1))
    requests = [message("numbers", 1, (1, 1)), bad, message("nope", 3, (1, 1)), message("numbers", 4, (1, 1))]
    first, second, third, fourth = await responses_to(stub, requests)
    assert (value_of(first), value_of(fourth)) == (1, 4)
    assert "expected a batch of 1 to 8, got 9" in second.error_message
    assert second.infer_response.id == "numbers-2"
    assert second.infer_response.parameters["fairlane_code"].string_param == "INVALID_ARGUMENT"
    assert "unknown model 'nope'" in third.error_message
    assert third.infer_response.parameters["fairlane_reason"].string_param == "UNKNOWN_MODEL"
    (thirteen,) = await responses_to(stub, [message("repeat", 13, (1,))])
    assert thirteen.error_message == "thirteen"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (message("numbers", 2, (9, 1)), grpc.StatusCode.INVALID_ARGUMENT),
        (message("repeat", 13, (1,)), grpc.StatusCode.INTERNAL),
    ],
)
async def test_triton_grpc_error_ends_the_stream_at_the_first_error(
    start: Any, stub_of: Any, request_: Any, code: Any
) -> None:
    stub = stub_of(await start())

    async def endless() -> AsyncIterator[Any]:
        yield message("numbers", 1, (1, 1))
        yield request_
        await asyncio.Event().wait()  # the client still writes when the error comes

    call = stub.ModelStreamInfer(endless(), metadata=(("triton_grpc_error", "true"),), timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is code


async def test_sequence_on_a_stream_keeps_its_order(start: Any, stub_of: Any) -> None:
    stub = stub_of(await start())
    requests = [
        message("total", n, (1, 1), sequence_id=42, sequence_start=n == 1, sequence_end=n == 6) for n in range(1, 7)
    ]
    assert [value_of(each) for each in await responses_to(stub, requests)] == [1, 12, 123, 1234, 12345, 123456]


async def test_sequences_spread_over_backends_and_each_stays_at_its_own(start: Any, stub_of: Any) -> None:
    stub = stub_of(await start(backends=2))

    async def sequence(number: int, tenant: str) -> list[int]:
        totals = []
        for n in range(1, 5):
            about = {"sequence_id": number, "sequence_start": n == 1, "sequence_end": n == 4}
            answer = await stub.ModelInfer(message("total", n, (1, 1), **about), metadata=(("x-tenant-id", tenant),))
            totals.append(int(np.frombuffer(answer.raw_output_contents[0], dtype=np.int32)[0]))
        return totals

    for number in (7, 8):
        assert await asyncio.gather(sequence(number, "a"), sequence(number, "b")) == [[1, 12, 123, 1234]] * 2


async def test_sequences_on_streams_keep_apart(start: Any, stub_of: Any) -> None:
    stub = stub_of(await start(backends=2))

    async def sequence(tenant: str) -> list[int]:
        flags = [{"sequence_id": 42, "sequence_start": n == 1, "sequence_end": n == 6} for n in range(1, 7)]
        requests = [message("total", n, (1, 1), **about) for n, about in enumerate(flags, 1)]
        metadata = (("x-tenant-id", tenant),)
        return [value_of(each) for each in await responses_to(stub, requests, metadata=metadata)]

    assert await asyncio.gather(sequence("a"), sequence("b")) == [[1, 12, 123, 1234, 12345, 123456]] * 2


async def test_cancelled_stream_leaves_nothing_behind(start: Any, stub_of: Any, eventually: Any) -> None:
    stub = stub_of(await start())

    async def endless() -> AsyncIterator[Any]:
        yield message("repeat", 100_000, (1,))
        await asyncio.Event().wait()

    call = stub.ModelStreamInfer(endless())
    await call.read()
    call.cancel()
    again = await responses_to(stub, [message("repeat", 1, (1,))])
    assert [value_of(each) for each in again] == [0]


async def test_load_and_unload_reach_every_backend(start: Any, stub_of: Any, tritons: list[str]) -> None:
    stub = stub_of(await start(backends=2))
    direct = [stub_of(address) for address in tritons]
    name = service_pb2.ModelReadyRequest(name="halves")
    await stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="halves"))
    assert not any([(await each.ModelReady(name)).ready for each in direct])
    await stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="halves"))
    assert all([(await each.ModelReady(name)).ready for each in direct])
    with pytest.raises(grpc.aio.AioRpcError, match=r"t0: .*t1: ") as caught:
        await stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="nope"))
    assert caught.value.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT}


async def test_load_that_one_backend_cannot_do_is_an_error_that_says_which(
    start: Any, stub_of: Any, tritons: list[str]
) -> None:
    stub = stub_of(await start(addresses=[tritons[0], "127.0.0.1:1"]))
    with pytest.raises(grpc.aio.AioRpcError, match="t0: done; t1: UNAVAILABLE") as caught:
        await stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="halves"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_settings_are_fanned_out_and_told(start: Any, stub_of: Any, tritons: list[str]) -> None:
    stub = stub_of(await start(backends=2))
    request = service_pb2.LogSettingsRequest()
    request.settings["log_verbose_level"].uint32_param = 1
    await stub.LogSettings(request)
    for address in tritons:
        told = await stub_of(address).LogSettings(service_pb2.LogSettingsRequest())
        assert told.settings["log_verbose_level"].uint32_param == 1
    request.settings["log_verbose_level"].uint32_param = 0
    await stub.LogSettings(request)
    trace = await stub.TraceSetting(service_pb2.TraceSettingRequest())
    assert "trace_level" in trace.settings


async def test_statistics_are_summed_over_backends_with_the_queue_time(start: Any, stub_of: Any) -> None:
    one, two = stub_of(await start()), stub_of(await start(backends=2))
    await asyncio.gather(*(two.ModelInfer(message("numbers", n, (1, 1))) for n in range(32)))
    name = service_pb2.ModelStatisticsRequest(name="numbers")
    (single,) = (await one.ModelStatistics(name)).model_stats
    (both,) = (await two.ModelStatistics(name)).model_stats
    assert both.inference_count > single.inference_count
    assert both.inference_stats.queue.count == both.inference_stats.success.count + 32
    assert both.inference_stats.queue.ns > 0
    assert both.last_inference >= single.last_inference
    everything = await two.ModelStatistics(service_pb2.ModelStatisticsRequest())
    assert {each.name for each in everything.model_stats} >= {"numbers", "text", "repeat"}


async def test_shared_memory_works_with_one_backend_and_is_refused_with_two(
    start: Any, stub_of: Any, tmp_path: Path
) -> None:
    from tritonclient.utils import shared_memory

    values = np.arange(4, dtype=np.int32).reshape(2, 2)
    region = shared_memory.create_shared_memory_region("fairlane", f"/fairlane_{tmp_path.name}", values.nbytes * 2)
    try:
        shared_memory.set_shared_memory_region(region, [values])
        async with aio_client.InferenceServerClient(await start()) as client:
            await client.register_system_shared_memory("fairlane", f"/fairlane_{tmp_path.name}", values.nbytes * 2)
            given = aio_client.InferInput("IN", values.shape, "INT32")
            given.set_shared_memory("fairlane", values.nbytes)
            wanted = aio_client.InferRequestedOutput("OUT")
            wanted.set_shared_memory("fairlane", values.nbytes, values.nbytes)
            await client.infer("numbers", [given], outputs=[wanted])
            answer = shared_memory.get_contents_as_numpy(region, np.int32, [2, 2, 2])
            np.testing.assert_array_equal(answer[1], values)
            await client.unregister_system_shared_memory("fairlane")
        async with aio_client.InferenceServerClient(await start(backends=2)) as client:
            with pytest.raises(InferenceServerException, match="shared memory needs exactly one"):
                await client.register_system_shared_memory("fairlane", "/x", 8)
            with pytest.raises(InferenceServerException, match="needs exactly one"):
                await client.infer("numbers", [given], outputs=[wanted])
    finally:
        shared_memory.destroy_shared_memory_region(region)


async def test_health_v1_and_reflection(start: Any) -> None:
    async with grpc.aio.insecure_channel(await start()) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "inference.GRPCInferenceService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        (listed,) = [each async for each in stub.ServerReflectionInfo(iter(asked))]
        names = {service.name for service in listed.list_services_response.service}
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("compression", ["gzip", "deflate", None])
async def test_infer_in_the_forms_of_the_stock_client(start: Any, compression: str | None) -> None:
    async with aio_client.InferenceServerClient(await start()) as client:
        halves = np.array([[0.5, -2.0, 65504.0]], dtype=np.float16)
        given = aio_client.InferInput("IN", halves.shape, "FP16")
        given.set_data_from_numpy(halves)
        answer = await client.infer("halves", [given], compression_algorithm=compression, priority=2, timeout=10**7)
        np.testing.assert_array_equal(answer.as_numpy("OUT"), halves)
        nothing = aio_client.InferInput("IN", [1, 0], "FP16")
        nothing.set_data_from_numpy(np.zeros((1, 0), dtype=np.float16))
        assert (await client.infer("halves", [nothing])).as_numpy("OUT").shape == (1, 0)


async def test_typed_contents_and_classification_pass_as_triton_answers_them(
    start: Any, stub_of: Any, tritons: list[str]
) -> None:
    typed = service_pb2.ModelInferRequest(model_name="numbers")
    tensor = typed.inputs.add(name="IN", datatype="INT32", shape=[1, 3])
    tensor.contents.int_contents.extend([3, 1, 2])
    classified = service_pb2.ModelInferRequest()
    classified.CopyFrom(typed)
    classified.outputs.add(name="OUT").parameters["classification"].int64_param = 2
    words = service_pb2.ModelInferRequest(model_name="text")
    words.inputs.add(name="IN", datatype="BYTES", shape=[1, 2]).contents.bytes_contents.extend([b"", b"caf\xc3\xa9"])
    direct, ours = stub_of(tritons[0]), stub_of(await start())
    for request in (typed, classified, words):
        assert await ours.ModelInfer(request) == await direct.ModelInfer(request)
