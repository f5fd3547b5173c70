"""A backend that answers garbage: everybody gets an error or an answer of his own, and the service goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from scheduler.edge.stream import Responses
from scheduler.triton import catalog
from scheduler.triton.decoupled import relay_responses
from scheduler.triton.fake import FakeModel, FakeTriton
from scheduler.triton.spec import spec_from_config
from tests.edge.garbling import Garble, GarblingBackend

NO_MESSAGE = b"\xff\xff\xff"


class Behind:
    """A service, the backend that garbles, and the fake behind it."""

    def __init__(self, app: App, triton: FakeTriton, garbled: dict[str, Garble], stub: Any) -> None:
        self.app, self.triton, self.garbled, self.stub = app, triton, garbled, stub

    async def infer(self, request: Any) -> Any:
        return await self.stub.ModelInfer(request, timeout=60)

    async def code(self, request: Any) -> grpc.StatusCode | None:
        """What the request ends with, None where it is answered."""
        try:
            await self.infer(request)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return None


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    async with AsyncExitStack() as stack:
        triton = FakeTriton((FakeModel("identity"),))
        garbling = GarblingBackend(await triton.start())
        stack.push_async_callback(triton.stop)
        address = await garbling.start()
        stack.push_async_callback(garbling.stop)
        listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
        backends = [{"name": "garbling", "grpc": address}]
        app = App(Config.model_validate({"listen": listen, "backends": backends, "limits": {"drain_s": 1}}))
        addresses = await app.start()
        stack.push_async_callback(app.stop)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses.grpc))
        yield Behind(app, triton, garbling.garbled, service_pb2_grpc.GRPCInferenceServiceStub(channel))


def answer(change: Callable[[Any], Any]) -> Garble:
    """An answer to ModelInfer that was changed in place."""

    def garble(message: bytes) -> bytes:
        response = service_pb2.ModelInferResponse.FromString(message)
        change(response)
        changed: bytes = response.SerializeToString()
        return changed

    return garble


def _truncate(response: Any) -> None:
    response.raw_output_contents[0] = response.raw_output_contents[0][:-3]


def _set(field: str, value: Any) -> Callable[[Any], Any]:
    return lambda response: setattr(response.outputs[0], field, value)


def _reshape(*shape: int) -> Callable[[Any], Any]:
    return lambda response: response.outputs[0].shape.__setitem__(slice(None), shape)


GARBAGE: dict[str, Garble] = {
    "no message": lambda _: NO_MESSAGE,
    "nothing at all": lambda _: b"",
    "datatype that does not exist": answer(_set("datatype", "FP99")),
    "no datatype": answer(_set("datatype", "")),
    "another datatype": answer(_set("datatype", "INT8")),
    "strings that are none": answer(_set("datatype", "BYTES")),
    "no shape": answer(_reshape()),
    "negative shape": answer(_reshape(-4, -1)),
    "shape beyond all numbers": answer(_reshape(4, 2**62)),
    "rows of nothing": answer(_reshape(4, 0)),
    "fewer rows": answer(_reshape(1, 1)),
    "truncated": answer(_truncate),
    "contents missing": answer(lambda response: response.raw_output_contents.__delitem__(slice(None))),
    "contents too many": answer(lambda response: response.raw_output_contents.append(b"1234")),
    "outputs missing": answer(lambda response: response.outputs.__delitem__(slice(None))),
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_for_an_answer_ends_each_request_alone_and_the_service_goes_on(
    behind: Behind, request_of: Any, rows_of: Any, eventually: Any, garbage: str
) -> None:
    assert rows_of(await behind.infer(request_of([[1]]))) == [[1]]
    behind.garbled["ModelInfer"] = GARBAGE[garbage]
    behind.triton.hold()
    asked = [asyncio.ensure_future(behind.infer(request_of([[n]], id=f"r{n}"))) for n in range(6)]
    await eventually(lambda: behind.app.snapshot().queued + behind.app.snapshot().in_flight == 6)
    before = len(behind.triton.requests)
    behind.triton.release()
    for number, ended in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
        if isinstance(ended, grpc.aio.AioRpcError):
            assert ended.code() is grpc.StatusCode.INTERNAL
            assert ended.details().startswith("model identity: ")
        else:
            # Alone, each has what the backend says of its own rows, as from Triton itself: nobody has another's.
            assert not isinstance(ended, BaseException), ended
            own = number.to_bytes(8, "little")
            assert all(raw in {b"1234", own, own[:-3]} for raw in ended.raw_output_contents)
    # Those that came together were asked again one by one, but where no outputs is what each of them can be given.
    assert len(behind.triton.requests) > before or garbage == "nothing at all"
    behind.garbled.clear()
    assert rows_of(await behind.infer(request_of([[7]]))) == [[7]]
    state = behind.app.snapshot()
    assert (state.queued, state.in_flight) == (0, 0)


def _config(change: Callable[[Any], Any]) -> Garble:
    """An answer to ModelConfig that was changed in place."""

    def garble(message: bytes) -> bytes:
        response = service_pb2.ModelConfigResponse.FromString(message)
        change(response.config)
        changed: bytes = response.SerializeToString()
        return changed

    return garble


NO_SENSE: dict[str, tuple[str, Garble]] = {
    "liveness is no message": ("ServerLive", lambda _: NO_MESSAGE),
    "index is no message": ("RepositoryIndex", lambda _: NO_MESSAGE),
    "configuration is no message": ("ModelConfig", lambda _: NO_MESSAGE),
    "datatype that does not exist": ("ModelConfig", _config(lambda config: setattr(config.input[0], "data_type", 77))),
    "negative batch": ("ModelConfig", _config(lambda config: setattr(config, "max_batch_size", -1))),
    "another model's name": ("ModelConfig", _config(lambda config: setattr(config, "name", "other\x1b[2J\n"))),
}


@pytest.mark.parametrize("garbage", NO_SENSE)
async def test_garbage_for_a_probe_makes_a_model_unavailable_until_it_makes_sense_again(
    behind: Behind, request_of: Any, rows_of: Any, garbage: str
) -> None:
    method, garble = NO_SENSE[garbage]
    # Requests wait for a backend that is missed until the outage is over.
    limits = behind.app._config.limits.model_copy(update={"outage_s": 0.1})
    behind.app.reload(lambda: behind.app._config.model_copy(update={"limits": limits}))
    behind.garbled[method] = garble
    while (code := await behind.code(request_of([[1]]))) is None:  # noqa: ASYNC110 - until the next probe
        await asyncio.sleep(0.05)
    assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}
    behind.garbled.clear()
    while await behind.code(request_of([[1]])) is not None:  # noqa: ASYNC110 - until the next probe
        await asyncio.sleep(0.05)
    assert rows_of(await behind.infer(request_of([[1]]))) == [[1]]


@given(config=st.binary(max_size=200))
def test_any_configuration_of_a_model_is_read_or_makes_no_sense(config: bytes) -> None:
    message = model_config_pb2.ModelConfig()
    with contextlib.suppress(DecodeError, ValueError):
        message.ParseFromString(config)
        spec = spec_from_config(message, ("1",))
        assert spec.instances >= 1
        assert spec.max_batch_size >= 0


RELAYED = {
    "ServerMetadata": service_pb2.ServerMetadataRequest(),
    "ModelReady": service_pb2.ModelReadyRequest(name="identity"),
    "ModelMetadata": service_pb2.ModelMetadataRequest(name="identity"),
    "RepositoryIndex": service_pb2.RepositoryIndexRequest(),
}


@pytest.fixture
def probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes read the same answers as callers do; one that reads garbage takes the backend out before a caller asks."""
    monkeypatch.setattr(catalog, "PROBE_INTERVAL_S", 3600.0)


@pytest.mark.parametrize("method", RELAYED)
@pytest.mark.usefixtures("probed_once")
async def test_garbage_for_a_relayed_answer_is_an_error_in_words(behind: Behind, method: str) -> None:
    await behind.app._catalog.refresh()
    behind.garbled[method] = lambda _: NO_MESSAGE
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(behind.stub, method)(RELAYED[method], timeout=30)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "no message of the protocol" in str(caught.value.details())


class GarbledUpstream:
    """A backend's stream whose only answer could not be parsed; its own stub."""

    def __init__(self) -> None:
        self.cancelled = False

    def ModelStreamInfer(self, **_: Any) -> Any:  # noqa: N802
        return self

    async def write(self, _: Any) -> None: ...

    async def read(self) -> None: ...

    def cancel(self) -> None:
        self.cancelled = True


async def test_garbage_on_a_decoupled_models_stream_ends_it_with_an_error() -> None:
    upstream, taken = GarbledUpstream(), []

    async def take(response: Any) -> None:
        taken.append(response)

    with pytest.raises(grpc.aio.AioRpcError, match="no message of the protocol"):
        await relay_responses(upstream, service_pb2.ModelInferRequest(), Responses(take, ends_at_error=False), None)
    assert (taken, upstream.cancelled) == ([], True)


async def test_answer_that_is_larger_than_a_message_may_be_ends_its_request_alone(
    serve: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve(limits={"message_bytes": 1024 * 1024, "drain_s": 1})
    served.triton.models["long"] = FakeModel(
        "long", compute=lambda tensors: {"OUTPUT": np.repeat(tensors["INPUT"], 2**18, axis=1)}
    )
    words = "model long: expected an answer of at most limits.message_bytes, 1048576, got 2097"
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await served.infer(request_of([[1]], model="long"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(tuple(caught.value.trailing_metadata()))["grpc-retry-pushback-ms"] == "-1"
    assert rows_of(await served.infer(request_of([[1]]))) == [[1]]
    requests = [request_of([[1]]), request_of([[1]], model="long", id="large"), request_of([[2]])]
    first, large, last = [each async for each in served.stub.ModelStreamInfer(iter(requests), timeout=60)]
    assert words in large.error_message
    assert large.infer_response.id == "large"
    assert (rows_of(first.infer_response), rows_of(last.infer_response)) == ([[1]], [[2]])
