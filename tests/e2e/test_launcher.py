import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from scheduler.triton.launcher import EmbeddedTriton, TritonStartError

SHARED_MEMORY = Path("/dev/shm")


def processes(marker: str) -> list[int]:
    """Pids of living processes whose command line contains a marker; one that waits to be reaped counts as gone."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marker in command and state not in "ZX" and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.fixture
def regions_left():
    """Names of the shared-memory regions that servers of this process made since the test began and left."""

    def regions():
        return {path.name for path in SHARED_MEMORY.glob(f"fairlane_triton_*_{os.getpid()}_*")}

    before = regions()
    return lambda: regions() - before


def add(address, left, right):
    inputs = []
    for name, value in (("A", left), ("B", right)):
        tensor = grpcclient.InferInput(name, value.shape, "FP32")
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    with grpcclient.InferenceServerClient(address.grpc) as client:
        result = client.infer("arithmetic", inputs)
    return result.as_numpy("SUM"), result.as_numpy("DIFFERENCE")


def test_answers_as_numpy_does(models, start_triton):
    models.add_arithmetic()
    server = start_triton(models)
    left, right = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
    total, difference = add(server.address, left, right)
    np.testing.assert_array_equal(total, left + right)
    np.testing.assert_array_equal(difference, left - right)


def test_two_at_once_have_ports_processes_and_memory_of_their_own(models, start_triton):
    models.add_arithmetic()
    first, second = start_triton(models), start_triton(models)
    addresses = [getattr(server.address, kind) for server in (first, second) for kind in ("grpc", "http", "metrics")]
    assert len(set(addresses)) == 6
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    first.call(first.triton.stop(grace_s=0.0))
    ones = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(add(second.address, ones, ones)[0], 2 * ones)


def test_listens_on_loopback_only(models, start_triton):
    server = start_triton(models)
    for address in (server.address.grpc, server.address.http, server.address.metrics):
        with socket.socket() as outside:
            port = int(address.rpartition(":")[2])
            assert outside.connect_ex(("127.0.0.2", port)) != 0


def test_models_can_be_unloaded_and_loaded_while_it_runs(models, start_triton):
    models.add_arithmetic()
    server = start_triton(models)
    ones = np.ones((1, 4), np.float32)
    with grpcclient.InferenceServerClient(server.address.grpc) as client:
        client.unload_model("arithmetic")
        models.add_identity("late", "FP32")
        client.load_model("arithmetic")
        client.load_model("late")
        assert client.is_model_ready("late")
    np.testing.assert_array_equal(add(server.address, ones, ones)[0], 2 * ones)


def test_truncated_model_fails_the_start_with_tritons_reason(models, start_triton, regions_left):
    models.add_arithmetic("whole")
    broken = models.add_arithmetic("broken") / "1" / "model.onnx"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(
        TritonStartError, match=r"(?s)'broken' version 1.*model\.onnx.*Protobuf parsing failed"
    ) as caught:
        start_triton(models)
    assert "Traceback" not in str(caught.value)
    assert "'whole'" not in str(caught.value)
    assert processes(str(models.path)) == []
    assert not regions_left()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("dims: [4]", "dims: [oops]", "Expected integer, got: oops"),
        ("dims: [4]", "dims: [5]", r"config\.pbtxt says dims \[5\], the graph has \[4\]"),
        ("TYPE_FP32", "TYPE_INT64", "config.pbtxt says TYPE_INT64, the graph has TYPE_FP32"),
        ('"SUM"', '"TOTAL"', r"output \['TOTAL'\] of config.pbtxt not in the graph.*DIFFERENCE.*SUM"),
    ],
)
def test_wrong_configuration_fails_the_start_with_the_models_name(models, start_triton, old, new, reason):
    config = models.add_arithmetic() / "config.pbtxt"
    config.write_text(config.read_text().replace(old, new, 1))
    with pytest.raises(TritonStartError, match=f"(?s){reason}") as caught:
        start_triton(models)
    assert "arithmetic" in str(caught.value)
    assert processes(str(models.path)) == []


async def test_end_without_a_reason_while_models_load_names_them(models):
    version = models.path / "ender" / "1"
    version.mkdir(parents=True)
    tensors = "{ name: 'X' data_type: TYPE_FP32 dims: 1 }"
    (version.parent / "config.pbtxt").write_text(f"backend: 'python' input {tensors} output {tensors}")
    (version / "model.py").write_text(
        "import os, signal\n"
        "class TritonPythonModel:\n"
        "    def initialize(self, args):\n"
        "        os.kill(os.getppid(), signal.SIGSEGV)\n"
    )
    with pytest.raises(
        TritonStartError, match=r"exited with -11:(.|\n)*it was loading ender; a warm-up that fails can"
    ):
        await EmbeddedTriton(models.path).start()


async def test_deadline_passed_fails_the_start_and_leaves_no_process(models, regions_left):
    models.add_arithmetic()
    triton = EmbeddedTriton(models.path, ready_timeout_s=0.1)
    with pytest.raises(TritonStartError, match=r"not ready within 0\.1 s"):
        await triton.start()
    assert triton.pid is None
    assert processes(str(models.path)) == []
    assert not regions_left()


async def test_cancelled_start_leaves_no_process(models, poll_until, regions_left):
    models.add_arithmetic()
    triton = EmbeddedTriton(models.path)
    start = asyncio.create_task(triton.start())
    await asyncio.to_thread(poll_until, lambda: triton.pid is not None)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert processes(str(models.path)) == []
    assert not regions_left()


async def test_port_in_use_is_said_and_never_taken_for_ready(models, start_triton):
    """A server that already answers on the port must not pass for the one being started."""
    running = start_triton(models)
    http_port = int(running.address.http.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        free = one.getsockname()[1], two.getsockname()[1]
    with pytest.raises(TritonStartError, match="already in use"):
        await EmbeddedTriton(models.path, ports=(free[0], http_port, free[1])).start()
    assert running.triton.pid is not None


async def test_missing_environment_names_the_command_that_makes_it(models, tmp_path):
    with pytest.raises(TritonStartError, match="fairlane install-triton"):
        await EmbeddedTriton(models.path, environment=tmp_path).start()


async def test_missing_repository_is_named(tmp_path):
    with pytest.raises(TritonStartError, match="absent is not a directory"):
        await EmbeddedTriton(tmp_path / "absent").start()


async def test_stop_is_clean_and_idempotent(models, regions_left):
    models.add_arithmetic()
    triton = EmbeddedTriton(models.path)
    await triton.stop()
    await triton.start()
    await triton.stop()
    await triton.stop()
    assert await triton.wait() == 0
    assert triton.pid is None
    assert any("unloaded 'arithmetic'" in line for line in triton.log_tail())
    assert processes(str(models.path)) == []
    assert not regions_left()


async def test_stop_kills_after_the_grace(models):
    models.add_arithmetic()
    triton = EmbeddedTriton(models.path)
    await triton.start()
    assert triton.pid is not None
    os.kill(triton.pid, signal.SIGSTOP)
    await triton.stop(grace_s=0.1)
    assert await triton.wait() == -signal.SIGKILL
    assert processes(str(models.path)) == []


async def test_wait_returns_when_the_server_is_killed(models, regions_left):
    models.add_arithmetic()
    triton = EmbeddedTriton(models.path)
    await triton.start()
    waiting = asyncio.create_task(triton.wait())
    assert triton.pid is not None
    os.kill(triton.pid, signal.SIGKILL)
    assert await asyncio.wait_for(waiting, 15) == -signal.SIGKILL
    assert processes(str(models.path)) == []
    assert not regions_left()
    await triton.stop()


async def test_starts_again_after_its_end(models):
    triton = EmbeddedTriton(models.path)
    first = await triton.start()
    with pytest.raises(RuntimeError, match="already runs"):
        await triton.start()
    await triton.stop()
    assert await triton.start() != first
    await triton.stop()


async def test_log_goes_to_the_path_that_was_named(models, tmp_path):
    log = tmp_path / "logs" / "triton.log"
    triton = EmbeddedTriton(models.path, log_path=log)
    address = await triton.start()
    assert address.grpc in log.read_text()
    await triton.stop(grace_s=0.0)
    assert log.exists()


async def test_ready_address_serves_health_and_metrics(models):
    triton = EmbeddedTriton(models.path)
    address = await triton.start()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{address.http}/v2/health/live") as response:
            assert response.status == 200
        metrics = ""
        async with asyncio.timeout(30):
            while "nv_" not in metrics:  # Triton opens this port a moment after it says that it is ready
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    async with session.get(f"http://{address.metrics}/metrics") as response:
                        metrics = await response.text()
    await triton.stop(grace_s=0.0)
