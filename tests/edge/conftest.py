"""A whole Fairlane on free ports, in front of a fake Triton that the test controls."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import Addresses, App
from scheduler.config import Config
from scheduler.triton.fake import FakeModel, FakeTriton
from tests.wires import WIRES


def _refuse_sevens(tensors: dict[str, Any]) -> dict[str, Any]:
    if (tensors["INPUT"] == 7).any():
        raise ValueError("seven is not in the vocabulary")
    return {"OUTPUT": tensors["INPUT"]}


MODELS = (
    FakeModel("identity"),
    FakeModel("two_instances", instances=2),
    FakeModel("unbatched", max_batch_size=0, dims=(2,)),
    FakeModel("no_sevens", compute=_refuse_sevens),
    FakeModel("short", compute=lambda tensors: {"OUTPUT": tensors["INPUT"][:1]}),
    FakeModel("floats", datatype="FP32", dims=(3,)),
)


@dataclass
class Served:
    """A running service, its fake backend, and a raw stub at it."""

    app: App
    addresses: Addresses
    triton: FakeTriton
    stub: Any

    async def infer(self, request: Any, metadata: Sequence[tuple[str, str]] = (), timeout_s: float = 30) -> Any:
        return await self.stub.ModelInfer(request, metadata=metadata, timeout=timeout_s)


ServeFactory = Callable[..., Any]


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> str:
    """What carries gRPC: each test runs over both."""
    return str(request.param)


@pytest.fixture
async def serve(wire: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServeFactory]:
    """`await serve(**config)`: a service with these settings in front of a new fake Triton."""
    async with AsyncExitStack() as stack:

        async def stop(app: App) -> None:
            # The test is over and its channel closed: no client is left to wait for. A test's own stop does wait.
            monkeypatch.setattr("scheduler.app.QUIET_S", 0.0)
            await app.stop()

        async def start(**settings: Any) -> Served:
            triton = FakeTriton(MODELS)
            address = await triton.start()
            stack.push_async_callback(triton.stop)
            config = Config.model_validate(
                {
                    "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                    "backends": [{"name": "fake", "grpc": address}],
                    "limits": {"drain_s": 1.0},
                }
                | settings
            )
            config = config.model_copy(update={"listen": config.listen.model_copy(update={"wire": wire})})
            app = App(config)
            addresses = await app.start()
            stack.push_async_callback(stop, app)
            stack.callback(triton.release)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses.grpc))
            return Served(app, addresses, triton, service_pb2_grpc.GRPCInferenceServiceStub(channel))

        yield start


@pytest.fixture
def request_of() -> Callable[..., Any]:
    """A `ModelInferRequest` for an identity model: INT64 rows as raw contents."""

    def build(rows: Sequence[Sequence[int]], model: str = "identity", **about: Any) -> Any:
        array = np.array(rows, dtype=np.int64)
        request = service_pb2.ModelInferRequest(model_name=model, **about)
        request.inputs.add(name="INPUT", datatype="INT64", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
        return request

    return build


@pytest.fixture
def rows_of() -> Callable[[Any], list[list[int]]]:
    """The rows of an identity model's answer."""

    def decode(response: Any) -> list[list[int]]:
        array = np.frombuffer(response.raw_output_contents[0], dtype=np.int64)
        decoded: list[list[int]] = array.reshape(tuple(response.outputs[0].shape)).tolist()
        return decoded

    return decode
