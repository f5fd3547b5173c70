"""`fairlane serve` as a person runs it: a process of its own, on the published models, with real signals."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fairlane
import numpy as np
import pytest

from scheduler.cpus import divide

ROOT = Path(__file__).parents[2]
READY = re.compile(r"fairlane is ready: (?:open [^;]+; )?gRPC on (\S+), HTTP on (\S+), embedded Triton on (\S+)")
START_S = 90.0
SERVE = (sys.executable, "-m", "scheduler", "serve")


@dataclass
class Serving:
    """A ready service."""

    process: subprocess.Popen[str]
    grpc: str
    http: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `fairlane ARGUMENTS --address ...` against it."""
        command = [sys.executable, "-m", "scheduler", *arguments, "--address", self.grpc]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def state(self) -> Any:
        with urllib.request.urlopen(f"{self.http}/debug/snapshot", timeout=10) as reply:
            return json.load(reply)


def descendants(pid: int) -> list[int]:
    """Processes under this one, by walking /proc once."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for each in found:
        found.extend(child for child, parent in parents.items() if parent == each)
    return found[1:]


def alive(pids: list[int]) -> list[int]:
    living = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                living.append(pid)
        except OSError:
            continue
    return living


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started = []

    def start(*flags: str) -> Serving:
        log = (tmp_path / "serve.err").open("w")
        process = subprocess.Popen(
            [*SERVE, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        started.append(process)
        assert process.stdout is not None
        found = READY.match(process.stdout.readline())
        assert found, (tmp_path / "serve.err").read_text()
        return Serving(process, found[1], found[2])

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def embed(client: fairlane.Client, rows: int = 1) -> Any:
    inputs = {name: np.ones((rows, 8), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    return client.infer("minilm", inputs, priority="interactive", tenant="demo", timeout_s=30)["sentence_embedding"]


def test_infer_commands_answer_from_the_int8_models(serve: Callable[..., Serving]) -> None:
    serving = serve()
    with urllib.request.urlopen(f"{serving.http}/readyz", timeout=10) as reply:
        assert reply.status == 200
    texts = ("a cat on the sofa", "a kitten on the couch", "quarterly revenue")
    flags = [flag for text in texts for flag in ("--text", text)]
    table = serving.run("infer", "minilm", *flags, "--priority", "interactive", "--tenant", "demo")
    assert table.returncode == 0, table.stderr
    assert "quarterly" in table.stdout
    printed = serving.run("infer", "minilm", *flags, "--json")
    assert printed.returncode == 0, printed.stderr
    answer = json.loads(printed.stdout)
    cosine = np.array(answer["similarity"])
    assert cosine[0, 1] > 0.6
    assert cosine[0, 2] < 0.3
    digits = serving.run("infer", "digits", "--sample", "0", "--sample", "7", "--priority", "background", "--json")
    assert digits.returncode == 0, digits.stderr
    assert serving.state()["ended"]["COMPLETED"] == 3
    with urllib.request.urlopen(f"{serving.http}/metrics", timeout=10) as reply:
        metrics = reply.read().decode()
    assert (
        'fairlane_requests_total{class="interactive",model="minilm",outcome="completed",tenant="demo"} 1.0' in metrics
    )


def cpus(pid: int) -> set[int]:
    """The CPUs that every thread of a process may use, as one set."""
    threads = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
    return set().union(*(os.sched_getaffinity(thread) for thread in threads))


def test_scheduler_and_models_run_on_cpus_of_their_own(serve: Callable[..., Serving], tmp_path: Path) -> None:
    division = divide(os.sched_getaffinity(0))
    if division is None:
        pytest.skip("one CPU alone is shared")
    apart = serve()
    names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in descendants(apart.process.pid)}
    (server,) = (pid for pid, name in names.items() if name.startswith("tritonserver"))
    stubs = [pid for pid, name in names.items() if name.startswith("triton_python")]
    assert len(stubs) == 2  # one for each model
    assert cpus(apart.process.pid) == division.scheduler
    assert cpus(server) == division.triton.server
    assert {frozenset(cpus(pid)) for pid in stubs} == {division.triton.models}
    shared = tmp_path / "shared.yaml"
    shared.write_text("own_cpu: false")
    together = serve("--config", str(shared))
    assert {frozenset(cpus(pid)) for pid in [together.process.pid, *descendants(together.process.pid)]} == {
        frozenset(os.sched_getaffinity(0))
    }


def test_interrupt_stops_everything_and_exits_with_zero(serve: Callable[..., Serving], poll_until: Any) -> None:
    serving = serve()
    children = descendants(serving.process.pid)
    assert children
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(timeout=30) == 0
    poll_until(lambda: not alive(children))


def test_nothing_is_left_when_the_service_is_killed(serve: Callable[..., Serving], poll_until: Any) -> None:
    serving = serve()
    children = descendants(serving.process.pid)
    assert children
    serving.process.kill()
    serving.process.wait(timeout=30)
    poll_until(lambda: not alive(children))


def test_killed_triton_is_started_again_and_service_resumes(serve: Callable[..., Serving], poll_until: Any) -> None:
    serving = serve()
    (server,) = [
        pid for pid in descendants(serving.process.pid) if b"tritonserver" in Path(f"/proc/{pid}/comm").read_bytes()
    ]
    with fairlane.Client(serving.grpc) as client:
        before = embed(client)
        os.kill(server, signal.SIGKILL)
        poll_until(lambda: not client.ready())
        with pytest.raises(fairlane.DeadlineExceeded):
            client.infer("digits", {"image": np.zeros((1, 1, 8, 8), dtype=np.float32)}, timeout_s=0.05)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{serving.http}/readyz", timeout=10)
        np.testing.assert_array_equal(embed(client), before)


def test_model_that_does_not_load_ends_the_start_where_models_are_strict(tmp_path: Path) -> None:
    model = tmp_path / "models" / "broken"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.onnx").write_bytes(b"not an onnx file")
    (model / "config.pbtxt").write_text(
        'name: "broken"\nbackend: "onnxruntime"\nmax_batch_size: 1\n'
        'input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]\noutput [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]\n'
    )
    strict = tmp_path / "strict.yaml"
    strict.write_text(f"strict_models: true\nmodel_repository: {tmp_path / 'models'}\n")
    result = subprocess.run(
        [*SERVE, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config", str(strict)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert "broken" in result.stderr
    assert "is ready" not in result.stdout


def test_address_that_is_taken_is_named(serve: Callable[..., Serving]) -> None:
    serving = serve()
    result = subprocess.run(
        [*SERVE, "--listen", serving.grpc, "--http", "127.0.0.1:0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    assert f"listen.grpc: {serving.grpc}" in result.stderr
