"""The servers under test. Each is started fresh for a visit and stopped after it: never two at once."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import grpc
import grpc.aio
import psutil

from bench.processes.parent_death import tied
from scheduler.triton.launcher import EmbeddedTriton

READY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
# A flooded Triton never drains its queue: nothing is gained by waiting for it.
TRITON_GRACE_S: Final = 1.0
# What is left of a flood concerns nobody: past this the process is killed, and its Triton with it.
STOP_TIMEOUT_S: Final = 5.0
CHILDREN_TIMEOUT_S: Final = 10.0

NGINX: Final = "nginx"
# One worker and long-lived upstream connections: as cheap as it gets. Each request at Triton takes a connection of its
# own, for nginx puts no two onto one; a flood has thousands.
NGINX_CONFIG: Final = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
error_log stderr warn;
pid {scratch}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    client_max_body_size 0;
    keepalive_requests 100000000;
    upstream triton {{ server {upstream}; keepalive 4096; keepalive_requests 100000000; }}
    server {{
        listen {listen} http2;
        http2_max_concurrent_streams 4096;
        location / {{ grpc_pass grpc://triton; grpc_read_timeout 600s; grpc_send_timeout 600s; }}
    }}
}}
"""


Ready = TypeVar("Ready")


class TargetError(RuntimeError):
    """A server did not start; the message names its log."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running server: its gRPC address (HOST:PORT), and the process between client and Triton where there is one."""

    grpc: str
    hop_pid: int | None = None


@asynccontextmanager
async def triton(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
    """Triton alone, on a model repository."""
    server = EmbeddedTriton(model_repository, log_path=log)
    try:
        address = await server.start()
        yield Target(grpc=address.grpc)
    finally:
        await server.stop(TRITON_GRACE_S)


@asynccontextmanager
async def proxy(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
    """A plain grpc.aio pass-through (bench/targets/pass_through.py) before Triton.

    Raises:
        TargetError: it did not start.
    """
    async with triton(model_repository, log=log) as behind:
        hop_log = log.with_suffix(".proxy.log")
        command = (sys.executable, "-m", "bench.targets.pass_through", behind.grpc)
        async with _process(command, hop_log, STOP_TIMEOUT_S) as process:

            async def listens() -> str | None:
                words = hop_log.read_text().split()
                return words[1] if words[:1] == ["ready"] else None

            yield Target(grpc=await _wait(process, lambda: _listens(hop_log), hop_log), hop_pid=process.pid)


@asynccontextmanager
async def network(upstream: str, round_trip_s: float, *, log: Path) -> AsyncIterator[str]:
    """A relay that puts a network before a server (network.py); gives its address.

    Raises:
        TargetError: it did not start.
    """
    command = (sys.executable, "-m", "bench.targets.network", upstream, str(round_trip_s))
    async with _process(command, log, STOP_TIMEOUT_S) as process:
        yield await _wait(process, lambda: _listens(log), log)


def nginx_path() -> str | None:
    """Where nginx is: in PATH, in /usr/sbin, which not everybody has there, or beside this Python; None: nowhere."""
    return shutil.which(NGINX) or shutil.which(NGINX, path=f"/usr/sbin{os.pathsep}{Path(sys.executable).parent}")


@asynccontextmanager
async def nginx(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
    """Nginx with `grpc_pass` before Triton.

    Raises:
        TargetError: it did not start.
    """
    async with triton(model_repository, log=log) as behind:
        (listen,) = free_addresses(1)
        scratch = log.with_suffix(".nginx").absolute()
        scratch.mkdir(parents=True, exist_ok=True)
        config = scratch / "nginx.conf"
        config.write_text(NGINX_CONFIG.format(scratch=scratch, upstream=behind.grpc, listen=listen))
        hop_log = log.with_suffix(".nginx.log")
        command = (nginx_path() or NGINX, "-c", str(config), "-e", "stderr")
        async with _process(command, hop_log, STOP_TIMEOUT_S) as process:
            await _wait(process, lambda: _connects(listen), hop_log)
            (worker,) = psutil.Process(process.pid).children()
            yield Target(grpc=listen, hop_pid=worker.pid)


@asynccontextmanager
async def fairlane(model_repository: Path, config: Path, *, log: Path) -> AsyncIterator[Target]:
    """`fairlane serve` as a process of its own, with the Triton it embeds. Both end with this process, however it ends.

    Raises:
        TargetError: it did not become ready.
    """
    listen, http = free_addresses(2)
    command = [sys.executable, "-m", "scheduler", "serve", "--listen", listen, "--http", http]
    command += ["--model-repository", str(model_repository), "--config", str(config)]
    async with _process(tuple(command), log, STOP_TIMEOUT_S) as process, _session() as session:
        await _wait(process, lambda: _answers(session, f"http://{http}/readyz"), log)
        yield Target(grpc=listen, hop_pid=process.pid)


@asynccontextmanager
async def _process(command: tuple[str, ...], log: Path, stop_s: float) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process tied to this one, its output in a log; ended, and everything it started, when the context is left.

    In a session of its own, as servers are: within one, the kernel weighs its threads against the load generator's.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *tied(*command), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        await _stop(process, stop_s)


async def _stop(process: asyncio.subprocess.Process, stop_s: float) -> None:
    """Ask it to stop, insist after a while, and leave nothing of what it started."""
    if process.returncode is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), stop_s)
    except TimeoutError:
        process.kill()
        await process.wait()
    # Its Triton's supervisor cleans up after it; killed at once it could not.
    _, left = await asyncio.to_thread(psutil.wait_procs, children, CHILDREN_TIMEOUT_S)
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()


async def _wait(process: asyncio.subprocess.Process, answer: Callable[[], Awaitable[Ready | None]], log: Path) -> Ready:
    """Ask until the answer is true."""
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up_s:
        if process.returncode is not None:
            raise TargetError(f"the server ended with code {process.returncode}, see {log}:\n{_tail(log)}")
        if found := await answer():
            return found
        await asyncio.sleep(POLL_S)
    raise TargetError(f"the server was not ready after {READY_TIMEOUT_S:g} s, see {log}:\n{_tail(log)}")


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2))


async def _answers(session: aiohttp.ClientSession, url: str) -> bool | None:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return None


async def _listens(log: Path) -> str | None:
    """The address that a process of ours has printed."""
    words = (await asyncio.to_thread(log.read_text)).split()
    return words[1] if words[:1] == ["ready"] else None


async def _connects(address: str) -> bool | None:
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), 1.0)
        except TimeoutError:
            return None
        return True


def free_addresses(count: int) -> list[str]:
    """HOST:PORT on loopback that nobody has at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
