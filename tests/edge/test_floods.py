"""What a flood makes the service hold: bounded, by what SECURITY.md says, and given back when the flood is over.

The service is a process of its own. Whatever is done the first time makes the allocators' arenas grow, so each flood
runs once before it is measured.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from bench.attack.attacks import Attack, SlowReaders, make_attack
from tests.serving import resident_bytes, serve_before_a_fake

MIB = 1024 * 1024
# As often as each is done, and what the service may have grown by when it has been done twice. Calls that are taken
# back (100 on each connection) pile up in gRPC before the service sees any of them: some 16 KiB each, given back to the
# allocator, and once a minute to the system.
PASSING = {"drops": (2000, 16 * MIB), "headers": (300, 16 * MIB), "resets": (100, 128 * MIB)}
AT_ONCE = 50
STREAMS = 40
# Of a stream whose answers nobody reads: 128 requests, their answers, and gRPC's buffers; with messages this small.
STREAM_BYTES = 2 * MIB


async def flood(once: Attack, address: str, times: int) -> None:
    """Do it so often, AT_ONCE at a time; connections that the service cuts short count."""
    for _ in range(0, times, AT_ONCE):
        await asyncio.gather(*(once(address) for _ in range(AT_ONCE)), return_exceptions=True)


@contextlib.asynccontextmanager
async def tenant_of(address: str, request_of: Any, rows_of: Any) -> Any:
    """`await ask()`: a request of somebody else, who comes again while the flood fills the queue, and is answered."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ask() -> None:
            while True:
                try:
                    answer = await stub.ModelInfer(request_of([[7]]), metadata=(("x-tenant-id", "victim"),), timeout=60)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    await asyncio.sleep(0.01)
                else:
                    assert rows_of(answer) == [[7]]
                    return

        await ask()
        yield ask


async def until_steady(pid: int, ask: Callable[[], Any]) -> None:
    """Until ten requests of somebody else find no more held than those before."""
    before = -1
    while before != (before := resident_bytes(pid)):
        for _ in range(10):
            await ask()


@pytest.mark.parametrize("kind", PASSING)
async def test_flood_that_passes_leaves_no_more_than_its_bound(
    tmp_path: Path, request_of: Callable[..., Any], rows_of: Callable[..., Any], kind: str
) -> None:
    once = make_attack(kind, request_of([[1]]).SerializeToString())
    times, bound_bytes = PASSING[kind]
    async with serve_before_a_fake(tmp_path) as (pid, address), tenant_of(address, request_of, rows_of) as ask:
        await flood(once, address, times)
        await ask()
        before = resident_bytes(pid)
        await flood(once, address, times)
        await ask()
        grown = resident_bytes(pid) - before
        print(f"\n{kind}: {grown / MIB:.1f} MiB after {times} more")
        assert grown < bound_bytes


async def test_streams_whose_answers_nobody_reads_hold_no_more_than_their_bound(
    tmp_path: Path, request_of: Callable[..., Any], rows_of: Callable[..., Any]
) -> None:
    body = request_of([[1]]).SerializeToString()
    async with serve_before_a_fake(tmp_path) as (pid, address), tenant_of(address, request_of, rows_of) as ask:
        readers = SlowReaders(body)
        try:
            await asyncio.gather(*(readers(address) for _ in range(STREAMS)))
            await until_steady(pid, ask)
            before = resident_bytes(pid)
            await asyncio.gather(*(readers(address) for _ in range(STREAMS)))
            await until_steady(pid, ask)
            grown = resident_bytes(pid) - before
            print(f"\n{STREAMS} streams: {grown / STREAMS / 1024:.0f} KiB each")
            assert grown < STREAMS * STREAM_BYTES
        finally:
            for writer in readers.held:
                writer.transport.abort()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)
