"""The process of a server under test: started, asked until it is ready, and stopped with all that it started."""

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import psutil

from bench.processes.parent_death import killed_with_parent
from bench.targets.target import TargetError

READY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
# What is left of a flood concerns nobody: past this the process is killed, and its Triton with it.
STOP_TIMEOUT_S: Final = 5.0
CHILDREN_TIMEOUT_S: Final = 10.0
Ready = TypeVar("Ready")


@asynccontextmanager
async def server_process(command: tuple[str, ...], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server's process, its output in a log; ended, and everything it started, when the context is left.

    It ends with this process, too. It is in a session of its own, as servers are: within one, the kernel weighs its
    threads against the load generator's.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *killed_with_parent(*command), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop, insist after a while, and leave nothing of what it started."""
    if process.returncode is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
    # Its Triton's supervisor cleans up after it; killed at once it could not.
    _, left = await asyncio.to_thread(psutil.wait_procs, children, CHILDREN_TIMEOUT_S)
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()


async def wait_until_ready(
    process: asyncio.subprocess.Process, answer: Callable[[], Awaitable[Ready | None]], log: Path
) -> Ready:
    """Ask until the answer is true."""
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < give_up_s:
        if process.returncode is not None:
            raise TargetError(f"the server ended with code {process.returncode}, see {log}:\n{_tail(log)}")
        if found := await answer():
            return found
        await asyncio.sleep(POLL_S)
    raise TargetError(f"the server was not ready after {READY_TIMEOUT_S:g} s, see {log}:\n{_tail(log)}")


async def announced_address(log: Path) -> str | None:
    """The address that a process of ours has printed, `ready HOST:PORT`; None: not yet."""
    words = (await asyncio.to_thread(log.read_text)).split()
    return words[1] if words[:1] == ["ready"] else None


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
