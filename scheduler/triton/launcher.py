"""An embedded Triton: a real tritonserver on loopback, as a child of this process, from start to clean end."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from scheduler.cpus import TritonCpus
from scheduler.triton import launcher_log, launcher_residue, supervise
from scheduler.triton.launcher_environment import TritonEnvironment, TritonEnvironmentError
from scheduler.triton.launcher_flags import LOOPBACK, Serving

READY_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.05  # a start takes half a second; a poll costs a millisecond
PROBE_TIMEOUT_S: Final = 2.0
PORT_ATTEMPTS: Final = 3  # free ports are free when picked; another process may take one before Triton binds it
PORT_TAKEN: Final = "already in use"
SUPERVISOR_MARGIN_S: Final = 6.0  # the supervisor reaps for at most 5 s after the grace
LOG_BYTES: Final = 16 * 1024 * 1024
REASONS_SHOWN: Final = 12


class TritonStartError(RuntimeError):
    """The embedded Triton did not become ready; the message carries Triton's own reasons."""


@dataclass(frozen=True, slots=True)
class TritonAddress:
    """Where an embedded Triton listens, each as HOST:PORT."""

    grpc: str
    http: str
    metrics: str


def free_ports() -> tuple[int, int, int]:
    """Three distinct TCP ports that nobody has on loopback at this moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        grpc, http, metrics = (int(each.getsockname()[1]) for each in sockets)
    return grpc, http, metrics


class EmbeddedTriton:
    """One tritonserver on a model repository.

    Loads every model at start, or none, and keeps the load and unload RPCs usable (explicit model control). It ends
    with this process, also when this process is killed: see supervise.py. It has a session of its own, so Ctrl-C in
    a terminal reaches the scheduler alone, which drains and then calls `stop()`.

    Args:
        model_repository: directory of models as Triton lays them out.
        ports: gRPC, HTTP and metrics, all on loopback; None picks free ones.
        environment: the virtual environment that holds Triton; None: `triton` within this Python's own.
        ready_timeout_s: seconds that it has for becoming ready, with models or without.
        log_path: where Triton's output goes, anew at each start (at most 16 MiB, and what was before in LOG_PATH.1);
            None: a temporary file that goes with the server.
        cpus: whose CPUs are whose within Triton; None: all may use those of this process.
        args: further flags of tritonserver.
    """

    def __init__(
        self,
        model_repository: Path,
        *,
        ports: tuple[int, int, int] | None = None,
        environment: Path | None = None,
        ready_timeout_s: float = READY_TIMEOUT_S,
        log_path: Path | None = None,
        cpus: TritonCpus | None = None,
        args: Sequence[str] = (),
    ) -> None:
        self.model_repository = model_repository.absolute()
        self.ports = ports
        self.environment = environment
        self.ready_timeout_s = ready_timeout_s
        self.log_path = log_path
        self.cpus = cpus
        self.args = tuple(args)
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Process id of tritonserver; None before it runs and after it has ended."""
        return self._child.pid if self._child is not None and not self._child.ended.done() else None

    def log_tail(self, lines: int = 50) -> list[str]:
        """The last lines of Triton's output, also after its end."""
        return self._child.log_lines()[-lines:] if self._child is not None else []

    async def start(self, *, with_models: bool = True) -> TritonAddress:
        """Start Triton and wait until it is ready.

        Args:
            with_models: whether it is ready when every model is loaded, and a model that does not load fails the
                start; else it is ready without any, and the caller loads them.

        Raises:
            TritonStartError: no environment, a model that does not load, a port that is taken, or not ready in
                time. Triton's own reasons are in the message, and no process is left.
        """
        if self.pid is not None:
            raise RuntimeError(f"this Triton already runs, pid {self.pid}")
        deadline = time.monotonic() + self.ready_timeout_s
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                return await self._start_once(self.ports or free_ports(), deadline, with_models)
            except TritonStartError as error:
                if self.ports is not None or PORT_TAKEN not in str(error) or attempt == PORT_ATTEMPTS:
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _start_once(self, ports: tuple[int, int, int], deadline: float, with_models: bool) -> TritonAddress:
        if not self.model_repository.is_dir():
            raise TritonStartError(f"model repository {self.model_repository} is not a directory")
        try:
            environment = TritonEnvironment.find(self.environment)
        except TritonEnvironmentError as error:
            raise TritonStartError(str(error)) from error
        self._child = child = _Child(self.log_path, self.cpus)
        try:
            await child.launch(environment, Serving(self.model_repository, self.args, with_models), ports)
            await self._ready(child, ports[1], deadline)
        except OSError as error:
            await child.abort()
            raise TritonStartError(f"Triton on {self.model_repository} cannot be started: {error}") from error
        except BaseException:
            await child.abort()
            raise
        return TritonAddress(*(f"{LOOPBACK}:{port}" for port in ports))

    async def _ready(self, child: "_Child", http_port: int, deadline: float) -> None:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
        async with aiohttp.ClientSession(f"http://{LOOPBACK}:{http_port}", timeout=timeout) as session:
            while not await child.answers_ready(session):
                if child.ended.done():
                    raise TritonStartError(self._failure(f"exited with {child.ended.result()}"))
                if time.monotonic() >= deadline:
                    raise TritonStartError(self._failure(f"was not ready within {self.ready_timeout_s:g} s"))
                await asyncio.wait([child.ended], timeout=POLL_S)

    def _failure(self, what: str) -> str:
        assert self._child is not None
        lines = self._child.log_lines()
        reasons = launcher_log.reasons(lines)[-REASONS_SHOWN:]
        if not reasons and launcher_log.USAGE in lines:
            reasons = [f"it does not take one of its flags: {' '.join(self.args)}"]
        if not reasons:
            reasons = [line for line in lines if line.strip()][-3:]
            if loading := launcher_log.unfinished(lines):
                reasons.append(f"it was loading {', '.join(loading)}; a warm-up that fails can end Triton so")
        return "\n  ".join([f"Triton on {self.model_repository} {what}:", *(reasons or ["it printed nothing"])])

    async def stop(self, grace_s: float = 10.0) -> None:
        """End Triton: SIGTERM, and after `grace_s` seconds SIGKILL to it and all its children. Idempotent.

        Triton answers what is in flight and then takes 2 to 4 s to unload its models. A caller that has drained
        loses nothing with a grace of 0: what Triton would have cleaned up is removed here.
        """
        if self._child is not None:
            await self._child.stop(grace_s)

    async def wait(self) -> int:
        """The exit code of tritonserver once it has ended, negative for the signal that killed it.

        Raises:
            RuntimeError: it was never started.
        """
        if self._child is None:
            raise RuntimeError("this Triton was not started")
        return await asyncio.shield(self._child.ended)


class _Child:
    """One supervisor process and the tritonserver under it; `ended` resolves when both are gone."""

    def __init__(self, log_path: Path | None, cpus: TritonCpus | None) -> None:
        self.cpus = cpus
        self.name = launcher_residue.new_name()
        self.scratch = Path(tempfile.gettempdir(), self.name)
        self.log_path = (log_path or self.scratch / "triton.log").absolute()
        self.pid: int | None = None
        self.last_lines: list[str] | None = None
        self.complaints: list[str] = []
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._follower: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def launch(self, environment: TritonEnvironment, serving: Serving, ports: tuple[int, int, int]) -> None:
        """Start the supervisor and tell it what to run."""
        launcher_residue.remove_stale()
        self.scratch.mkdir(mode=0o700)
        backends = self.scratch / "backends"
        environment.assemble_backends(backends, None if self.cpus is None else self.cpus.models)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        server = environment.runnable_server(self.scratch)
        spec: supervise.Spec = {
            "command": [str(server), *serving.flags(self.name, backends, environment.caches, ports)],
            "environment": environment.variables(os.environ),
            "cpus": sorted(self.cpus.server) if self.cpus else [],
            "log": str(self.log_path),
            "log_bytes": LOG_BYTES,
            "shm_prefix": self.name,
            "scratch": str(self.scratch),
        }
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", supervise.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self._follower = asyncio.create_task(self._follow(self._process))
        self._tell(json.dumps(spec))

    async def answers_ready(self, session: aiohttp.ClientSession) -> bool:
        """Whether this server, by its id and not another on the same port, says that it is ready."""
        try:
            async with session.get("/v2") as response:
                if response.status != 200 or (await response.json()).get("name") != self.name:
                    return False
            async with session.get("/v2/health/ready") as response:
                return response.status == 200 and not self.ended.done()
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False

    def log_lines(self) -> list[str]:
        """The end of Triton's output, and what went wrong in the supervisor itself."""
        lines = launcher_log.tail(self.log_path) if self.last_lines is None else self.last_lines
        return [*lines, *self.complaints]

    async def stop(self, grace_s: float) -> None:
        """Ask the supervisor to stop Triton; kill both where it does not in time."""
        if self._process is None or self._follower is None:
            self._remove_scratch()
            return
        self._tell(f"stop {grace_s}")
        done, _ = await asyncio.wait([self._follower], timeout=grace_s + SUPERVISOR_MARGIN_S)
        if not done:
            self._process.kill()  # tritonserver dies with it, and _follow() removes what is left
        await asyncio.shield(self._follower)

    async def abort(self) -> None:
        """End everything now; told at once, so it happens even where the waiting is cancelled."""
        await self.stop(0.0)

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(f"{line}\n".encode())

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        code: int | None = None
        async for raw in process.stdout:
            word, _, value = raw.decode(errors="replace").rstrip().partition(" ")
            if word == "pid" and value.isdecimal():
                self.pid = int(value)
            elif word == "exit" and value.lstrip("-").isdecimal():
                code = int(value)
            else:
                self.complaints.append(f"{word} {value}")
        supervisor_code = await process.wait()
        if code is None and self.pid is not None:  # the supervisor was killed: do its last duties
            supervise.kill_group(self.pid)
            supervise.remove_shared_memory(self.name)
        self.last_lines = launcher_log.tail(self.log_path)
        self._remove_scratch()
        assert process.stdin is not None
        process.stdin.close()
        self.ended.set_result(supervisor_code if code is None else code)

    def _remove_scratch(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
