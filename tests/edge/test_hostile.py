"""Clients that mean harm: garbage, floods, and connections that are held. The service stays up, its memory bounded."""

import asyncio
import contextlib
import struct
import time
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.config import Config
from scheduler.config.limits import REQUESTS_PER_STREAM
from scheduler.edge.access import Access
from scheduler.edge.classify import Classifier
from scheduler.edge.shape import Shapes
from scheduler.edge.validate import MAX_STRINGS, check
from scheduler.errors import RequestError
from scheduler.triton.merge import SplitError, merge, merge_key, split
from scheduler.triton.queue_policy import NO_POLICIES
from scheduler.triton.spec import ELEMENT_BYTES, ModelSpec, TensorSpec

SPEC = ModelSpec(
    "m",
    8,
    1,
    {"A": TensorSpec("A", "INT32", (-1,), optional=False), "S": TensorSpec("S", "BYTES", (-1,), optional=True)},
    mergeable=True,
    versions=("1",),
    outputs={"OUT": "FP32"},
)
CONFIG = Config.model_validate({"tenants": {"acme": {"classes": ["background"], "models": ["m*"]}}})
CLASSIFIER = Classifier(CONFIG, Access(CONFIG), lambda _model, _version: NO_POLICIES)
names = st.sampled_from(["A", "S", "OUT", "", "B"]) | st.text(max_size=5)


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """Requests that are nearly right, and some that are nothing of the kind."""
    request = service_pb2.ModelInferRequest(
        model_name=draw(st.sampled_from(["m", "n"])), id=draw(st.text(max_size=200))
    )
    for _ in range(draw(st.integers(0, 3))):
        shape = draw(st.lists(st.integers(-1, 4) | st.sampled_from([2**31, 2**62]), max_size=3))
        datatype = draw(st.sampled_from([*ELEMENT_BYTES, "BYTES", "", "FP99"]))
        tensor = request.inputs.add(name=draw(names), datatype=datatype, shape=shape)
        if draw(st.integers(0, 9)) == 0:
            tensor.parameters["shared_memory_region"].string_param = "r"
        if draw(st.booleans()):
            request.raw_input_contents.append(draw(st.binary(max_size=40)))
    for _ in range(draw(st.integers(0, 2))):
        request.outputs.add(name=draw(names))
    for key in draw(st.sets(st.sampled_from(["priority", "timeout", "sequence_id", "x"]), max_size=2)):
        kind = draw(st.sampled_from(["int64_param", "uint64_param", "string_param", "bool_param", "double_param"]))
        values: dict[str, Any] = {
            "int64_param": st.integers(-(2**63), 2**63 - 1),
            "uint64_param": st.integers(0, 2**64 - 1),
            "string_param": st.text(max_size=5),
            "bool_param": st.booleans(),
            "double_param": st.floats(),
        }
        setattr(request.parameters[key], kind, draw(values[kind]))
    return request


headers = st.dictionaries(
    st.sampled_from(["x-priority", "x-tenant-id", "x-request-id", "x-llm-d-inference-objective", "authorization"]),
    st.text(max_size=200) | st.sampled_from(["interactive", "background", "acme"]),
)


@settings(max_examples=300, deadline=None)
@given(request=messages(), about=headers, remaining_s=st.none() | st.floats(0, 1e12))
def test_any_request_is_classified_and_checked_or_refused_in_words(
    request: Any, about: dict[str, str], remaining_s: float | None
) -> None:
    try:
        caller = CLASSIFIER.classify(request, about, remaining_s, dict)
        rows, _ = check(request, SPEC)
    except RequestError as refused:
        code, message = refused.code, str(refused)
    else:
        code, message = None, ""
    if code is not None:
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}
        assert message
        return
    assert caller.priority_class in {"interactive", "background"}
    assert 1 <= rows <= 8
    key = merge_key(request, SPEC)
    if key is not None:
        merged = merge([request, request], [rows, rows])
        assert merged.inputs[0].shape[0] == 2 * rows
        check_size = sum(len(raw) for raw in merged.raw_input_contents)
        assert check_size == 2 * sum(len(raw) for raw in request.raw_input_contents)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.lists(st.integers(-1, 5), max_size=3),
    datatype=st.sampled_from(["INT32", "BYTES", "BOOL"]),
    raw=st.binary(max_size=64),
    outputs=st.integers(0, 2),
)
def test_any_answer_is_split_or_named_as_what_it_is(shape: list[int], datatype: str, raw: bytes, outputs: int) -> None:
    response = service_pb2.ModelInferResponse(model_name="m")
    for _ in range(outputs):
        response.outputs.add(name="OUT", datatype=datatype, shape=shape)
    response.raw_output_contents.append(raw)
    try:
        parts = split(response, [service_pb2.ModelInferRequest(id=name) for name in "ab"], [1, 2])
    except SplitError:
        return
    assert b"".join(part.raw_output_contents[0] for part in parts) == raw


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    content=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Config.model_fields, "name", "weight", "tls", "grpc"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_any_configuration_is_read_or_refused_with_the_documented_error(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    import yaml

    from scheduler.config import load
    from scheduler.errors import StartError

    path = tmp_path_factory.mktemp("fuzz") / "fairlane.yaml"
    path.write_text(yaml.safe_dump(content))
    with contextlib.suppress(StartError):
        load(path, {}, {})


def test_check_of_a_hostile_request_does_not_grow_with_its_size() -> None:
    """Counted in processor time against a small request's: what is walked through is bounded."""
    many = service_pb2.ModelInferRequest(model_name="m")
    for _ in range(200_000):
        many.inputs.add(name="A")
    dims = service_pb2.ModelInferRequest(model_name="m")
    dims.inputs.add(name="A", datatype="INT32", shape=[1] * 1_000_000)
    for request, words in ((many, "given twice"), (dims, "1000000 dimensions")):
        with pytest.raises(RequestError, match=words) as caught:
            check(request, SPEC)
        assert len(str(caught.value)) < 1000


def test_more_strings_than_are_walked_through_ride_alone() -> None:
    def strings(count: int) -> Any:
        request = service_pb2.ModelInferRequest(model_name="m")
        request.inputs.add(name="A", datatype="INT32", shape=[1, 1])
        request.inputs.add(name="S", datatype="BYTES", shape=[1, count])
        request.raw_input_contents.extend([bytes(4), bytes(4 * count)])
        return request

    assert check(strings(MAX_STRINGS), SPEC).complete
    assert not check(strings(MAX_STRINGS + 1), SPEC).complete


async def opened(address: str) -> asyncio.StreamWriter:
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    return writer


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


async def test_thousand_connections_opened_and_dropped_leave_the_service_as_it_was(
    serve: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve()
    for start in range(0, 1000, 100):
        writers = await asyncio.gather(*(opened(served.addresses.grpc) for _ in range(100)))
        for number, writer in enumerate(writers, start):
            if number % 2:
                writer.write(PREFACE)
            writer.transport.abort()
    assert rows_of(await served.infer(request_of([[1]]))) == [[1]]


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, PREFACE + b"\xff" * 4096])
async def test_garbage_on_the_wire_harms_nobody(serve: Any, request_of: Any, rows_of: Any, garbage: bytes) -> None:
    served = await serve()
    writers = [await opened(served.addresses.grpc) for _ in range(20)]
    for writer in writers:
        writer.write(garbage)
    assert rows_of(await served.infer(request_of([[1]]))) == [[1]]
    for writer in writers:
        writer.transport.abort()


async def test_idle_connections_are_closed(serve: Any) -> None:
    served = await serve(limits={"idle_s": 0.2, "drain_s": 1})
    host, _, port = served.addresses.grpc.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE)
    async with asyncio.timeout(30):
        received = await reader.read(-1)
    goaway = struct.pack("!B", 7)
    assert goaway in {received[at + 3 : at + 4] for at in range(len(received) - 3)}
    writer.close()


async def test_metadata_beyond_the_limit_is_refused(serve: Any, request_of: Any) -> None:
    served = await serve()
    flood = tuple((f"x-flood-{n}", "x" * 100) for n in range(300))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.infer(request_of([[1]]), metadata=flood)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await served.infer(request_of([[1]]))


async def test_message_of_64_mib_passes_and_one_beyond_does_not(serve: Any, request_of: Any) -> None:
    served = await serve(limits={"message_bytes": 64 * 1024 * 1024 + 1024, "drain_s": 1})
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    request = request_of([[0] * (8 * 1024 * 1024)])
    async with grpc.aio.insecure_channel(served.addresses.grpc, options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = await stub.ModelInfer(request, timeout=60)
        assert answer.raw_output_contents[0] == request.raw_input_contents[0]
        request.id = "x" * 2048
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request, timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_message_that_unpacks_beyond_the_limit_is_refused(serve: Any, request_of: Any) -> None:
    served = await serve(limits={"message_bytes": 1024 * 1024, "drain_s": 1})
    bomb = request_of([[0] * 1024 * 1024])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ModelInfer(bomb, compression=grpc.Compression.Gzip, timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.triton.requests == []


async def test_client_that_does_not_read_its_stream_is_not_read_from(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await serve()
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 1
            yield request_of([[sent] * 8192])

    call = served.stub.ModelStreamInfer(endless())
    before = -1
    deadline = time.monotonic() + 30
    while before != sent:
        assert time.monotonic() < deadline
        before = sent
        await asyncio.sleep(0.5)
    snapshot = served.app.snapshot()
    assert snapshot.queued + snapshot.in_flight <= REQUESTS_PER_STREAM
    # Another client is served meanwhile.
    await served.infer(request_of([[1]]))
    call.cancel()
    await eventually(lambda: not served.app.snapshot().queued)


async def test_no_more_requests_of_a_stream_are_taken_in_than_allowed_and_all_are_answered(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await serve(limits={"requests_per_stream": 3, "drain_s": 1})
    served.triton.hold()
    call = served.stub.ModelStreamInfer()
    for number in range(5):
        await call.write(request_of([[number]]))
    await call.done_writing()

    def under_way() -> int:
        snapshot = served.app.snapshot()
        return snapshot.queued + snapshot.in_flight

    await eventually(lambda: under_way() == 3)
    await served.stub.ServerLive(service_pb2.ServerLiveRequest())  # what came before it has been seen
    assert under_way() == 3
    served.triton.release()
    answers = [answer async for answer in call]
    assert [answer.error_message for answer in answers] == [""] * 5


REMEMBERING = Shapes()


def found(shapes: Shapes, message: Any) -> Any:
    try:
        return shapes.of(message, SPEC, message.ByteSize())
    except RequestError as error:
        return str(error)


@given(messages())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_remembered_of_other_requests_never_changes_what_is_found(message: Any) -> None:
    expected = found(Shapes(), message)
    assert [found(REMEMBERING, message) for _ in range(2)] == [expected, expected]


async def test_flood_on_one_connection_is_refused_with_a_pushback_and_not_reset(serve: Any, request_of: Any) -> None:
    served = await serve(
        classes=[{"name": "only", "max_queued": 1100}], tenants={"default": {"max_queued": 1100, "max_in_flight": 1}}
    )
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n]]), timeout_s=120)) for n in range(1300)]
    done, waiting = set(), set(calls)
    while len(done) < 199:
        ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= ended
    errors = [call.exception() for call in done]
    assert {error.code() for error in errors if isinstance(error, grpc.aio.AioRpcError)} == {
        grpc.StatusCode.RESOURCE_EXHAUSTED
    }
    assert all("grpc-retry-pushback-ms" in dict(tuple(error.trailing_metadata())) for error in errors)  # type: ignore[union-attr]
    served.triton.release()
    await asyncio.gather(*waiting)
