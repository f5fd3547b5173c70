"""Work that takes longer than usual, on a real tritonserver: it is waited for, done once, and harms no neighbour."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from scheduler.core.backends import patience
from tests.e2e.test_lost_triton import server_pid
from tests.e2e.test_protocol import add_python, message, value_of
from tests.real_triton import ModelRepository, TritonFactory

# Milliseconds that are not worth a question, and that are.
SHORT_MS, LONG_MS = 20, 1500
FOR_EVER = -1
SLEEPY = """
import os
import time

import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    '''Takes as many milliseconds as it is asked to and notes that; -1: until the file `go` is there.'''

    def execute(self, requests):
        answers = []
        for request in requests:
            asked = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            with open("{folder}/done", "a") as file:
                file.write(f"{int(asked.flat[0])}\\n")
            if asked.flat[0] < 0:
                while not os.path.exists("{folder}/go"):
                    time.sleep(0.01)
            else:
                time.sleep(asked.flat[0] / 1000)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", asked)]))
        return answers
"""
FLOWING = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    '''Answers 0 to 4, each after a fifth of the milliseconds that it is asked for; a negative number: at the end.'''

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            asked_ms = int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().flat[0])
            if asked_ms < 0:
                time.sleep(-asked_ms / 1000)
            for number in range(5):
                if asked_ms > 0:
                    time.sleep(asked_ms / 5000)
                out = pb_utils.Tensor("OUT", np.array([number], dtype=np.int32))
                sender.send(pb_utils.InferenceResponse([out]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return None
"""
CONFIG = """
name: "{name}" backend: "python" max_batch_size: 0 {extra}
input [{{ name: "IN" data_type: TYPE_INT32 dims: [1] }}]
output [{{ name: "OUT" data_type: TYPE_INT32 dims: [1] }}]
instance_group [{{ count: {count} kind: KIND_CPU }}]
"""


class Server(NamedTuple):
    """A Triton with `one` and `two` instances of the sleepy model, and `flowing`."""

    address: str
    folder: Path

    def done(self) -> list[int]:
        """What the sleepy models have begun since the last look."""
        noted = self.folder / "done"
        done = [int(line) for line in noted.read_text().split()] if noted.exists() else []
        noted.write_text("")
        return done


def new_server(factory: TritonFactory, repository: ModelRepository, folder: Path) -> Server:
    for name, count in (("one", 1), ("two", 2)):
        add_python(
            repository, name, SLEEPY.replace("{folder}", str(folder)), CONFIG.format(name=name, count=count, extra="")
        )
    decoupled = "model_transaction_policy { decoupled: true }"
    add_python(repository, "flowing", FLOWING, CONFIG.format(name="flowing", count=1, extra=decoupled))
    return Server(factory(repository).address.grpc, folder)


@pytest.fixture(scope="module")
def servers(
    triton_factory: TritonFactory,
    new_repository: Callable[[], ModelRepository],
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Server]:
    return [new_server(triton_factory, new_repository(), tmp_path_factory.mktemp("sleepy")) for _ in range(2)]


@pytest.fixture(autouse=True)
def fresh(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is overdue after hang_s, also before the model's first answer; nobody sleeps for ever yet."""
    monkeypatch.setattr(patience, "COLD_HANG_S", 0.0)
    for server in servers:
        server.done()
        (server.folder / "go").unlink(missing_ok=True)


@pytest.fixture
async def start(servers: list[Server]) -> AsyncIterator[Callable[..., Any]]:
    """`await start(backends=1, **settings)`: a service in front of so many, and a stub at it."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(backends: int = 1, **settings: Any) -> tuple[App, Any]:
            config = {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "backends": [{"name": f"t{n}", "grpc": each.address} for n, each in enumerate(servers[:backends])],
                "limits": {"hang_s": 0.2, "drain_s": 1},
            }
            app = App(Config.model_validate(config | settings))
            address = (await app.start()).grpc
            stack.push_async_callback(app.stop)
            for server in servers:
                stack.callback((server.folder / "go").touch)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            return app, service_pb2_grpc.GRPCInferenceServiceStub(channel)

        yield begin


def sleep(stub: Any, model: str, ms: int, timeout_s: float | None = None) -> Any:
    return asyncio.ensure_future(_sleep(stub, model, ms, timeout_s))


async def _sleep(stub: Any, model: str, ms: int, timeout_s: float | None) -> str:
    """How it ended."""
    try:
        await stub.ModelInfer(message(model, ms, (1,)), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return dict(tuple(error.trailing_metadata() or ())).get("fairlane-reason") or error.code().name
    return "OK"


async def test_long_request_is_done_once_and_told_of_and_its_neighbours_do_not_wait_for_it(
    start: Any, servers: list[Server], caplog: pytest.LogCaptureFixture
) -> None:
    app, stub = await start()
    long = sleep(stub, "two", LONG_MS)
    for _ in range(20):
        assert await sleep(stub, "two", SHORT_MS) == "OK"
    assert not long.done()
    assert await long == "OK"
    assert sorted(servers[0].done()) == [*[SHORT_MS] * 20, LONG_MS]
    assert app.snapshot().backends[0].breakers == {}
    assert any("(request 'two-1500' of default): its server lives" in line for line in caplog.messages)


async def test_those_behind_a_long_request_on_the_only_instance_wait_for_it_and_are_done_once(
    start: Any, servers: list[Server]
) -> None:
    _, stub = await start()
    calls = [sleep(stub, "one", LONG_MS), *(sleep(stub, "one", SHORT_MS) for _ in range(5))]
    assert set(await asyncio.gather(*calls)) == {"OK"}
    assert sorted(servers[0].done()) == [*[SHORT_MS] * 5, LONG_MS]


@pytest.mark.parametrize("asked_ms", [LONG_MS, -LONG_MS], ids=["flows", "is silent for long before its first response"])
async def test_long_stream_is_not_cut(start: Any, asked_ms: int) -> None:
    _, stub = await start()
    call = stub.ModelStreamInfer(iter([message("flowing", asked_ms, (1,))]))
    responses = [response async for response in call]
    assert [response.error_message for response in responses] == [""] * 5
    assert [value_of(response) for response in responses] == list(range(5))


async def test_stream_that_flows_is_within_its_models_limit_and_one_that_is_silent_is_not(start: Any) -> None:
    _, stub = await start(models={"flowing": {"hang_s": LONG_MS / 2000}})
    flows = [each async for each in stub.ModelStreamInfer(iter([message("flowing", LONG_MS, (1,))]))]
    assert [value_of(response) for response in flows] == list(range(5))
    (silent,) = [each async for each in stub.ModelStreamInfer(iter([message("flowing", -LONG_MS, (1,))]))]
    assert silent.infer_response.parameters["fairlane_reason"].string_param == "BACKEND_LOST"


async def test_request_that_hangs_for_ever_is_given_up_by_its_models_limit_and_the_other_instance_goes_on(
    start: Any, servers: list[Server], caplog: pytest.LogCaptureFixture
) -> None:
    app, stub = await start(models={"two": {"hang_s": 0.5}})
    hung = sleep(stub, "two", FOR_EVER)
    while not hung.done():
        assert await sleep(stub, "two", SHORT_MS) == "OK"
    assert await hung == "BACKEND_LOST"
    assert set(await asyncio.gather(*(sleep(stub, "two", SHORT_MS) for _ in range(20)))) == {"OK"}
    assert app.snapshot().backends[0].in_flight["two"] == 1
    assert servers[0].done().count(FOR_EVER) == 1
    (line,) = [line for line in caplog.messages if "given up" in line]
    assert "(request 'two--1' of default): it is given up (models.two.hang_s)" in line


async def test_request_that_hangs_for_ever_without_a_limit_ends_at_its_deadline_and_the_other_instance_goes_on(
    start: Any, servers: list[Server], eventually: Any
) -> None:
    app, stub = await start()
    hung = sleep(stub, "two", FOR_EVER, timeout_s=0.6)
    while not hung.done():
        assert await sleep(stub, "two", SHORT_MS) == "OK"
    assert await hung in {"DEADLINE_EXPIRED", "DEADLINE_EXCEEDED"}
    await eventually(lambda: app.snapshot().backends[0].overdue == {"two": 1})
    assert set(await asyncio.gather(*(sleep(stub, "two", SHORT_MS) for _ in range(20)))) == {"OK"}
    assert servers[0].done().count(FOR_EVER) == 1
    (servers[0].folder / "go").touch()
    await eventually(lambda: app.snapshot().backends[0].in_flight["two"] == 0)


async def test_model_whose_only_instance_hangs_is_probed_and_serves_again_when_it_goes_on(
    start: Any, servers: list[Server], eventually: Any
) -> None:
    app, stub = await start()
    assert await sleep(stub, "one", SHORT_MS) == "OK"
    ends = await asyncio.gather(*(sleep(stub, "one", FOR_EVER, timeout_s=0.3) for _ in range(4)))
    assert "OK" not in ends
    patient = sleep(stub, "one", SHORT_MS)
    await eventually(lambda: app.snapshot().backends[0].breakers)
    assert await sleep(stub, "two", SHORT_MS) == "OK"
    (servers[0].folder / "go").touch()
    assert await patient == "OK"
    await eventually(lambda: not app.snapshot().backends[0].breakers)


async def test_stopped_backend_is_left_for_the_other_and_answers_what_it_had_when_it_goes_on(
    start: Any, servers: list[Server], eventually: Any
) -> None:
    app, stub = await start(backends=2)
    before = [sleep(stub, "one", 300) for _ in range(2)]
    await eventually(lambda: all(each.in_flight.get("one") == 1 for each in app.snapshot().backends))
    pid = server_pid(servers[0].address)
    os.kill(pid, signal.SIGSTOP)
    try:
        await eventually(lambda: not next(each.ready for each in app.snapshot().backends if each.name == "t0"))
        after = [sleep(stub, "one", SHORT_MS) for _ in range(10)]
        assert set(await asyncio.gather(*after)) == {"OK"}
        assert sum(not call.done() for call in before) == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await asyncio.gather(*before) == ["OK", "OK"]
    assert sorted(servers[0].done() + servers[1].done()) == [*[SHORT_MS] * 10, 300, 300]


async def test_server_that_stands_still_for_four_seconds_costs_nobody_an_answer(
    start: Any, servers: list[Server], eventually: Any
) -> None:
    app, stub = await start(limits={"drain_s": 1})
    calls = [sleep(stub, "one", 50) for _ in range(40)]
    await eventually(lambda: any(call.done() for call in calls))
    pid = server_pid(servers[0].address)
    os.kill(pid, signal.SIGSTOP)
    try:
        await eventually(lambda: not app.ready)
        late = [sleep(stub, "one", 50) for _ in range(5)]
        await asyncio.sleep(2)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert set(await asyncio.gather(*calls, *late)) == {"OK"}
    assert servers[0].done() == [50] * 45
