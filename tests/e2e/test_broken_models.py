"""Models that do not load, block, or take the server down, in an embedded Triton: the others are served."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from scheduler.errors import StartError
from scheduler.triton import model_loads
from scheduler.triton.unserved import LOADING
from tests.real_triton import ModelRepository

IDENTITY = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
{initialize}
    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor)]) for tensor in tensors]
"""
CONFIG = """backend: "{backend}"
max_batch_size: 8
input {{ name: "IN" data_type: TYPE_INT64 dims: 1 }}
output {{ name: "OUT" data_type: TYPE_INT64 dims: 1 }}
instance_group {{ count: 1 kind: KIND_CPU }}
"""
ENSEMBLE = """platform: "ensemble"
max_batch_size: 8
input {{ name: "IN" data_type: TYPE_INT64 dims: 1 }}
output {{ name: "OUT" data_type: TYPE_INT64 dims: 1 }}
ensemble_scheduling {{
  step {{
    model_name: "{step}"
    model_version: -1
    input_map {{ key: "IN" value: "IN" }}
    output_map {{ key: "OUT" value: "OUT" }}
  }}
}}
"""
COMPLETES = """
    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(8)
        config.add_input({"name": "IN", "data_type": "TYPE_INT64", "dims": [1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_INT64", "dims": [1]})
        return config
"""
RAISES = 'raise pb_utils.TritonModelException("no licence file")'
BLOCKS = "import time; time.sleep(1e9)"
KILLS = "import os, signal; os.kill(os.getppid(), signal.SIGSEGV); signal.pause()"


def add(models: ModelRepository, name: str, initialize: str = "", config: str | None = None) -> Path:
    """Write a Python model that answers with what it gets, after this in `initialize`."""
    version = models.path / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    body = f"    def initialize(self, args):\n        {initialize}\n" if initialize else ""
    (version / "model.py").write_text(IDENTITY.format(initialize=body))
    (version.parent / "config.pbtxt").write_text(CONFIG.format(backend="python") if config is None else config)
    return version.parent


@dataclass
class Serving:
    """A service with an embedded Triton."""

    app: App
    stub: Any
    http: str

    async def ask(self, model: str) -> Any:
        request = service_pb2.ModelInferRequest(model_name=model)
        request.inputs.add(name="IN", datatype="INT64", shape=[1, 1])
        request.raw_input_contents.append(np.array([7], dtype=np.int64).tobytes())
        answer = await self.stub.ModelInfer(request, timeout=60)
        assert answer.raw_output_contents == request.raw_input_contents
        return answer

    async def refusal(self, model: str) -> tuple[str, str, str | None]:
        """Reason, message and pushback."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.ask(model)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        trailers = dict(tuple(caught.value.trailing_metadata()))
        return trailers["fairlane-reason"], str(caught.value.details()), trailers.get("grpc-retry-pushback-ms")

    async def load(self, model: str) -> None:
        await self.stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name=model), timeout=60)

    async def get(self, path: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.http}{path}") as reply:
            assert reply.status == 200
            return await reply.text()


@pytest.fixture
async def start(models: ModelRepository) -> AsyncIterator[Any]:
    """`await start(**settings)`: a Serving on `models`."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Serving:
            listen = {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}
            config = {"listen": listen, "model_repository": models.path, "own_cpu": False} | settings
            app = App(Config.model_validate(config))
            addresses = await app.start()
            stack.push_async_callback(app.stop)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses.grpc))
            return Serving(app, service_pb2_grpc.GRPCInferenceServiceStub(channel), addresses.http)

        yield begin


def tritonserver_under(models: ModelRepository) -> int:
    """Process id of the tritonserver that serves the repository."""
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if f"--model-repository={models.path}".encode() in command.split(b"\0"):
            return int(entry.name)
    raise AssertionError("no tritonserver")


def add_all_kinds(models: ModelRepository) -> None:
    """Models that are whole, that Triton completes, and that are broken in every way that is known."""
    add(models, "good")
    models.add_identity("graph", "INT64", dims=[1])
    (models.path / "graph" / "config.pbtxt").unlink()
    model = add(models, "completes") / "1" / "model.py"
    model.write_text(IDENTITY.format(initialize=COMPLETES))
    (models.path / "completes" / "config.pbtxt").unlink()
    add(models, "raises", RAISES)
    add(models, "blocks", BLOCKS)
    add(models, "unreadable", config="backend: [[[")
    add(models, "misnamed", config='name: "other"\n' + CONFIG.format(backend="python"))
    add(models, "without_backend", config=CONFIG.format(backend="tensorrt_plan"))
    (add(models, "without_file") / "1" / "model.py").unlink()
    (models.path / "without_version").mkdir()
    (models.path / "without_version" / "config.pbtxt").write_text(CONFIG.format(backend="python"))
    add(models, "of_good", config=ENSEMBLE.format(step="good"))
    add(models, "of_broken", config=ENSEMBLE.format(step="raises"))
    (models.path / ".tool").mkdir()


async def test_what_does_not_load_takes_no_other_along_and_is_named(
    models: ModelRepository, start: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loads, "SLOW_S", 2.0)
    add_all_kinds(models)
    serving = await start(triton={"load_s": 0.1})
    blocking = {"blocks", "without_file"}
    await eventually(lambda: {name for name, why in serving.app.unserved().items() if LOADING.why in why} == blocking)
    await eventually(lambda: "Python model file not found" in serving.app.unserved()["without_file"])
    for name in ("good", "graph", "completes", "of_good"):
        await serving.ask(name)
    why = {
        "raises": "no licence file",
        "unreadable": "failed to read text proto",
        "misnamed": "unexpected directory name 'misnamed' for model 'other'",
        "without_backend": "unable to find backend library for backend 'tensorrt_plan'",
        "without_version": "at least one version must be available",
        "of_broken": "depends on 'raises'",
    }
    for model, words in why.items():
        reason, message, pushback_ms = await serving.refusal(model)
        assert (reason, pushback_ms) == ("MODEL_NOT_LOADED", "-1"), model
        assert words in message, message
        assert "Traceback" not in message
    for model in blocking:
        reason, message, pushback_ms = await serving.refusal(model)
        assert (reason, pushback_ms) == ("MODEL_NOT_LOADED", "2000")
        assert "still being loaded" in message
    health = (await serving.get("/readyz")).splitlines()
    assert health[0] == "ready"
    assert {line.split()[1] for line in health[1:]} == {*why, *blocking}
    live = serving.app._observatory
    assert live is not None
    live.live.sample()
    assert {each["name"] for each in live.live.state()["unserved"]} == {*why, *blocking}
    # Repaired and loaded by hand, it is served at once.
    add(models, "raises")
    await serving.load("raises")
    await serving.ask("raises")
    assert "raises" not in await serving.get("/readyz")
    # A restart picks up what was repaired, and what is broken now is named; the others go on.
    add(models, "unreadable")
    add(models, "raises", RAISES)
    os.kill(tritonserver_under(models), signal.SIGKILL)
    assert len(await asyncio.gather(*(serving.ask("good") for _ in range(20)))) == 20
    await serving.ask("of_good")
    await eventually(lambda: "unreadable" not in serving.app.unserved())
    await serving.ask("unreadable")
    await eventually(lambda: "no licence file" in serving.app.unserved().get("raises", ""))
    reason, message, _ = await serving.refusal("raises")
    assert (reason, "no licence file" in message) == ("MODEL_NOT_LOADED", True)


async def test_what_takes_the_server_down_while_it_loads_is_found_and_left_out(
    models: ModelRepository, start: Any, eventually: Any
) -> None:
    for name in ("a", "b", "c"):
        add(models, name)
    add(models, "killer", KILLS)
    add(models, "of_killer", config=ENSEMBLE.format(step="killer"))
    serving = await start(triton={"load_s": 60})
    for name in ("a", "b", "c"):
        await serving.ask(name)
    reason, message, _ = await serving.refusal("killer")
    assert reason == "MODEL_NOT_LOADED"
    assert "tritonserver ended, last with -11, each time it was loaded" in message
    reason, message, _ = await serving.refusal("of_killer")
    assert (reason, "its step killer is not loaded" in message) == ("MODEL_NOT_LOADED", True)
    pid = tritonserver_under(models)
    # The next server is not taken down by it, and one with other files is tried again.
    add(models, "killer")
    os.kill(pid, signal.SIGKILL)
    await serving.ask("a")
    await eventually(lambda: not serving.app.unserved())
    await serving.ask("killer")
    await serving.ask("of_killer")


async def test_strict_models_fail_the_start(models: ModelRepository, start: Any) -> None:
    add(models, "good")
    add(models, "raises", RAISES)
    with pytest.raises(StartError, match="no licence file"):
        await start(strict_models=True)


async def test_flags_of_its_own_reach_tritonserver(models: ModelRepository, start: Any) -> None:
    add(models, "good", config=CONFIG.format(backend="python") + "response_cache { enable: true }\n")
    serving = await start(triton={"args": ["--cache-config=local,size=1048576", "--log-verbose=1"]})
    for _ in range(2):
        await serving.ask("good")
    asked = service_pb2.ModelStatisticsRequest(name="good")
    (statistics,) = (await serving.stub.ModelStatistics(asked, timeout=60)).model_stats
    assert statistics.inference_stats.cache_hit.count == 1


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--no-such-flag=1", "unrecognized option '--no-such-flag=1'"),
        ("--http-thread-count=many", "does not take one of its flags: --http-thread-count=many"),
        ("--cache-config=none,size=1", "libtritoncache_none.so"),
    ],
)
async def test_a_flag_that_tritonserver_does_not_take_fails_the_start_and_is_named(
    models: ModelRepository, start: Any, flag: str, words: str
) -> None:
    with pytest.raises(StartError, match=words):
        await start(triton={"args": [flag]})
