"""The servers under test. Each is started fresh for a phase and stopped after it: never two at once."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from scheduler.triton.launcher import EmbeddedTriton

READY_TIMEOUT_S: Final = 60.0
# A flooded Triton never drains its queue: nothing is gained by waiting for it.
TRITON_GRACE_S: Final = 1.0
# Fairlane drains, and then gives its own Triton time to end.
STOP_TIMEOUT_S: Final = 45.0


class TargetError(RuntimeError):
    """A server did not start; the message names its log."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A running server: its gRPC address (HOST:PORT), and the scheduler's process id where there is a scheduler."""

    grpc: str
    scheduler_pid: int | None = None


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
async def fairlane(model_repository: Path, config: Path, *, log: Path) -> AsyncIterator[Target]:
    """`fairlane serve` as a process of its own, with the Triton it embeds.

    Raises:
        TargetError: it did not become ready.
    """
    listen, http = (f"127.0.0.1:{port}" for port in _free_ports(2))
    command = [sys.executable, "-m", "scheduler", "serve", "--listen", listen, "--http", http]
    command += ["--model-repository", str(model_repository), "--config", str(config)]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=subprocess.STDOUT)
    children: list[psutil.Process] = []
    try:
        await _wait_ready(process, f"http://{http}/readyz", log)
        children = psutil.Process(process.pid).children(recursive=True)
        yield Target(grpc=listen, scheduler_pid=process.pid)
    finally:
        await _stop(process, children)


async def _wait_ready(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while time.monotonic() < give_up_s:
            if process.returncode is not None:
                raise TargetError(f"fairlane serve ended with code {process.returncode}, see {log}:\n{_tail(log)}")
            if await _is_ready(session, url):
                return
            await asyncio.sleep(0.1)
    raise TargetError(f"fairlane serve was not ready after {READY_TIMEOUT_S:g} s, see {log}:\n{_tail(log)}")


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _stop(process: asyncio.subprocess.Process, children: list[psutil.Process]) -> None:
    """Ask it to stop, insist after a while, and leave no Triton of its behind."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
