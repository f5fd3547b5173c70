"""Fairlane, with the Triton that it embeds."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from bench.targets.server_process import free_addresses, server_process, wait_until_ready
from bench.targets.target import Target


@asynccontextmanager
async def fairlane(model_repository: Path, config: Path, *, log: Path) -> AsyncIterator[Target]:
    """`fairlane serve` as a process of its own, with the Triton it embeds. Both end with this process, however it ends.

    Raises:
        TargetError: it did not become ready.
    """
    listen, http = free_addresses(2)
    command = [sys.executable, "-m", "scheduler", "serve", "--listen", listen, "--http", http]
    command += ["--model-repository", str(model_repository), "--config", str(config)]
    async with server_process(tuple(command), log) as process, _session() as session:
        await wait_until_ready(process, lambda: _answers(session, f"http://{http}/readyz"), log)
        yield Target(grpc=listen, hop_pid=process.pid)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2))


async def _answers(session: aiohttp.ClientSession, url: str) -> bool | None:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return None
