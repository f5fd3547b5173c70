"""A network before a server, by a relay that hands on every byte half a round trip later."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.targets.server_process import announced_address, server_process, wait_until_ready


@asynccontextmanager
async def network(upstream: str, round_trip_s: float, *, log: Path) -> AsyncIterator[str]:
    """A relay that puts a network before a server (bench/targets/network_relay.py); gives its address.

    Raises:
        TargetError: it did not start.
    """
    command = (sys.executable, "-m", "bench.targets.network_relay", upstream, str(round_trip_s))
    async with server_process(command, log) as process:
        yield await wait_until_ready(process, lambda: announced_address(log), log)
