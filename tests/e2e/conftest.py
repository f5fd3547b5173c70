"""Fixtures of the end-to-end tests."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config


@pytest.fixture(scope="session")
def poll_until() -> Callable[..., None]:
    """Poll a condition until it holds; AssertionError after `within_s` seconds."""

    def poll(condition: Callable[[], Any], *, within_s: float = 15.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not so within {within_s} s: {condition}"
            time.sleep(0.02)

    return poll


@pytest.fixture
async def administered() -> AsyncIterator[Callable[..., Any]]:
    """`await administered(HOST:PORT)`: a stub at a service before this Triton, for a caller with admin rights."""
    async with AsyncExitStack() as stack:

        async def start(backend: str) -> Any:
            settings = {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "backends": [{"name": "real", "grpc": backend}],
                "tenants": {"default": {"admin": True}},
            }
            app = App(Config.model_validate(settings))
            address = (await app.start()).grpc
            stack.push_async_callback(app.stop)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            return service_pb2_grpc.GRPCInferenceServiceStub(channel)

        yield start


@pytest.fixture(scope="session")
def seven() -> Callable[[str], Any]:
    """A request for one row, the number 7, to an INT64 identity model of `ModelRepository.add_identity`."""

    def build(model: str) -> Any:
        request = service_pb2.ModelInferRequest(model_name=model)
        request.inputs.add(name="IN", datatype="INT64", shape=[1, 1])
        request.raw_input_contents.append(np.array([7], dtype=np.int64).tobytes())
        return request

    return build
