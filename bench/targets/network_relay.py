"""A network between two programs on one host: every byte comes half a round trip later, in order, at any rate.

`python -m bench.targets.network_relay HOST:PORT SECONDS` relays TCP connections to that server, with that round trip,
and prints `ready HOST:PORT` with its own address.
"""

import asyncio
import sys
from contextlib import suppress
from typing import Final

CHUNK: Final = 1 << 16


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way_s: float) -> None:
    """Hand on what is read, each piece `one_way_s` after it came."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while piece := await reader.read(CHUNK):
            loop.call_later(one_way_s, _write, writer, piece)
    loop.call_later(one_way_s, writer.close)


def _write(writer: asyncio.StreamWriter, piece: bytes) -> None:
    if not writer.is_closing():
        writer.write(piece)


async def serve(upstream: str, round_trip_s: float) -> None:
    """Relay until the process is ended."""
    host, port = upstream.rsplit(":", 1)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(
            _relay(reader, there_writer, round_trip_s / 2), _relay(there_reader, writer, round_trip_s / 2)
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    address, own_port = server.sockets[0].getsockname()[:2]
    print(f"ready {address}:{own_port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], float(sys.argv[2])))
