"""A plain grpc.aio pass-through before Triton."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.targets.server_process import announced_address, server_process, wait_until_ready
from bench.targets.target import Target
from bench.targets.triton import triton


@asynccontextmanager
async def proxy(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
    """A plain grpc.aio pass-through (bench/targets/pass_through.py) before Triton.

    Raises:
        TargetError: it did not start.
    """
    async with triton(model_repository, log=log) as behind:
        hop_log = log.with_suffix(".proxy.log")
        command = (sys.executable, "-m", "bench.targets.pass_through", behind.grpc)
        async with server_process(command, hop_log) as process:
            address = await wait_until_ready(process, lambda: announced_address(hop_log), hop_log)
            yield Target(grpc=address, hop_pid=process.pid)
