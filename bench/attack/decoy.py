"""Somebody else on this machine: `python -m bench.attack.decoy` takes connections, reads what comes, and says nothing.

Attackers that are aimed at it take from the machine what they take anyway, and nothing from the service: that is what
an attack is compared with (`python -m bench.attack`). Like the attackers it has the lowest
priority, as if it were elsewhere.

It prints its address, HOST:PORT, and ends when its parent does.
"""

import asyncio
import resource
import sys

from bench.processes.cpu_priority import LOWEST, lower_cpu_priority

BACKLOG = 1024


class Silent(asyncio.Protocol):
    """One connection of which nothing is kept."""

    def data_received(self, data: bytes) -> None:
        """Drop it."""


async def main() -> None:
    """Listen for ever."""
    lower_cpu_priority(LOWEST)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = await asyncio.get_running_loop().create_server(Silent, "127.0.0.1", 0, backlog=BACKLOG)
    host, port = server.sockets[0].getsockname()
    sys.stdout.write(f"{host}:{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
