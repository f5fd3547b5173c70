"""A real tritonserver that stops answering, or dies, under load: everybody is answered, and service resumes."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from tests.e2e.test_protocol import REPEAT, REPEAT_CONFIG, add_python, message, value_of
from tests.real_triton import ModelRepository, TritonFactory

# Responses of one request: more than are made before its server is killed.
ENDLESS = 10_000_000


def server_pid(grpc_address: str) -> int:
    """The tritonserver that listens there: other tests' servers may run beside it."""
    port = grpc_address.rpartition(":")[2]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # not a process, or one that has just ended
            asked = (entry / "cmdline").read_text().split("\0")
            if f"--grpc-port={port}" in asked and (entry / "comm").read_text().strip() == "tritonserver":
                return int(entry.name)
    raise AssertionError(f"no tritonserver listens on {grpc_address}")


def request() -> Any:
    array = np.ones((1, 4), dtype=np.float32)
    message = service_pb2.ModelInferRequest(model_name="arithmetic")
    for name in ("A", "B"):
        message.inputs.add(name=name, datatype="FP32", shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


class Load:
    """Sixteen clients, none with a deadline, each with one request after the other."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.ended: Counter[str] = Counter()
        self.reasons: set[Any] = set()
        self.stuck: set[int] = set()
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(16)]

    async def _client(self, number: int) -> None:
        while True:
            try:
                await self._stub.ModelInfer(request())
                self.ended["OK"] += 1
            except grpc.aio.AioRpcError as error:
                self.ended[error.code().name] += 1
                self.reasons.add(dict(tuple(error.trailing_metadata() or ())).get("fairlane-reason"))
                await asyncio.sleep(0.05)
            self.stuck.discard(number)

    def mark(self) -> None:
        """Everything that is under way now is to be answered."""
        self.stuck = set(range(len(self._tasks)))

    async def stop(self, ended: Iterable[str] = ("OK", "UNAVAILABLE")) -> None:
        """Send no more; everything ended in one of these ways."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result
        assert set(self.ended) == set(ended)
        assert self.reasons <= {"NO_BACKEND", "BACKEND_LOST"}


@pytest.fixture
async def two(start_triton: TritonFactory, models: ModelRepository) -> AsyncIterator[Any]:
    """A Triton, and a service in front of it."""
    models.add_arithmetic()
    triton = start_triton(models)
    app = App(
        Config.model_validate(
            {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "backends": [{"name": "real", "grpc": triton.address.grpc}],
                "limits": {"drain_s": 1, "outage_s": 1, "hang_s": 1},
            }
        )
    )
    address = (await app.start()).grpc
    async with grpc.aio.insecure_channel(address) as channel:
        yield app, service_pb2_grpc.GRPCInferenceServiceStub(channel), triton.address.grpc
    await app.stop()


async def test_stopped_triton_ends_what_waits_when_the_outage_is_too_long_and_service_resumes(
    two: Any, eventually: Any
) -> None:
    app, stub, triton = two
    load = Load(stub)
    await eventually(lambda: load.ended["OK"] > 100)
    os.kill(server_pid(triton), signal.SIGSTOP)
    try:
        load.mark()
        await eventually(lambda: not load.stuck)
        # What was sent after the mark is given up a moment later.
        await eventually(lambda: app.snapshot().in_flight == 0)
    finally:
        os.kill(server_pid(triton), signal.SIGCONT)
    before = load.ended["OK"]
    await eventually(lambda: load.ended["OK"] > before + 100)
    assert not app.snapshot().backends[0].breakers
    await load.stop()
    await eventually(lambda: app.snapshot().tenants == ())
    assert app.snapshot().in_flight == 0


async def test_killed_triton_answers_everybody(two: Any, eventually: Any) -> None:
    app, stub, triton = two
    load = Load(stub)
    await eventually(lambda: load.ended["OK"] > 100)
    load.mark()
    os.kill(server_pid(triton), signal.SIGKILL)
    await eventually(lambda: not load.stuck)
    await eventually(lambda: load.ended["UNAVAILABLE"] > 16)
    await load.stop()
    assert app.snapshot().in_flight == 0


async def test_killed_triton_in_the_middle_of_a_stream_ends_it_and_nothing_comes_twice(
    start_triton: TritonFactory, new_repository: Callable[[], ModelRepository], eventually: Any
) -> None:
    backends = []
    for name in ("first", "second"):
        repository = new_repository()
        add_python(repository, "repeat", REPEAT, REPEAT_CONFIG)
        backends.append({"name": name, "grpc": start_triton(repository).address.grpc})
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "backends": backends, "limits": {"drain_s": 1}}))
    address = (await app.start()).grpc
    async with grpc.aio.insecure_channel(address) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(
            iter([message("repeat", ENDLESS, (1,))])
        )
        responses = [await call.read() for _ in range(10)]
        (serving,) = [each.name for each in app.snapshot().backends if each.in_flight.get("repeat")]
        (killed,) = [each["grpc"] for each in backends if each["name"] == serving]
        os.kill(server_pid(killed), signal.SIGKILL)
        while (response := await call.read()) is not grpc.aio.EOF:
            responses.append(response)
    await app.stop()
    *answers, last = responses
    assert [value_of(each) for each in answers] == list(range(len(answers)))
    told = last.infer_response.parameters
    assert told["fairlane_code"].string_param == "UNAVAILABLE", last.error_message
    assert told["fairlane_reason"].string_param == "BACKEND_LOST"


async def test_killed_embedded_triton_is_restarted_and_nobody_notices_but_by_the_wait(
    models: ModelRepository, eventually: Any
) -> None:
    models.add_arithmetic()
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "model_repository": models.path, "limits": {"drain_s": 1}}))
    addresses = await app.start()
    async with grpc.aio.insecure_channel(addresses.grpc) as channel:
        load = Load(service_pb2_grpc.GRPCInferenceServiceStub(channel))
        await eventually(lambda: load.ended["OK"] > 100)
        load.mark()
        os.kill(server_pid(addresses.triton), signal.SIGKILL)
        await eventually(lambda: not load.stuck)
        before = load.ended["OK"]
        await eventually(lambda: load.ended["OK"] > before + 100)
        await load.stop({"OK"})
    await app.stop()


async def test_embedded_triton_killed_at_forty_requests_a_second_costs_nobody_an_answer(
    models: ModelRepository, eventually: Any
) -> None:
    models.add_arithmetic()
    models.add_arithmetic("other")
    listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
    app = App(Config.model_validate({"listen": listen, "model_repository": models.path, "limits": {"drain_s": 1}}))
    addresses = await app.start()
    async with grpc.aio.insecure_channel(addresses.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        calls = []
        for number in range(320):
            if number == 80:
                os.kill(server_pid(addresses.triton), signal.SIGKILL)
            message = request()
            message.model_name = ("arithmetic", "other")[number % 2]
            calls.append(asyncio.ensure_future(stub.ModelInfer(message, timeout=15)))
            await asyncio.sleep(1 / 40)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    await app.stop()
