"""Connections that are held, and peers that are gone without a word: others are served, and what they held is freed."""

import asyncio
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import hpack
import pytest
from tritonclient.grpc import service_pb2_grpc

from bench.http2.frame import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, frame
from scheduler.edge import patience
from tests.serving import resident_bytes, serve_before_a_fake

MANY = 10_000
# Of the process that connects: its own files, channels, and the fake Triton.
OTHER_FILES = 200
# What gRPC 1.78 takes for a connection that has agreed on its settings is some 20 KiB.
CONNECTION_BYTES = 64 * 1024


def infer_frames(address: str, message: bytes) -> tuple[bytes, bytes]:
    """HEADERS and DATA of one ModelInfer on stream 1."""
    path = "/inference.GRPCInferenceService/ModelInfer"
    fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", address)]
    block = hpack.Encoder().encode([*fields, ("content-type", "application/grpc"), ("te", "trailers")])
    body = b"\0" + struct.pack("!I", len(message)) + message
    return frame(HEADERS, END_HEADERS, 1, block), frame(DATA, END_STREAM, 1, body)


async def agreed(address: str) -> socket.socket:
    """A connection on which both sides have agreed on their settings, and on which nothing is read any more."""
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    peer = socket.socket()
    peer.setblocking(False)
    await loop.sock_connect(peer, (host, int(port)))
    await loop.sock_sendall(peer, PREFACE + frame(SETTINGS, 0, 0))
    received = b""
    while frame(SETTINGS, ACK, 0) not in received:
        more = await loop.sock_recv(peer, 4096)
        assert more, "the server closed the connection"
        received += more
    await loop.sock_sendall(peer, frame(SETTINGS, ACK, 0))
    return peer


async def closed_by_the_server(peer: socket.socket) -> None:
    """Read until the end of the connection, and say nothing."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        try:
            while await loop.sock_recv(peer, 65536):
                pass
        except ConnectionError:
            pass
    peer.close()


@pytest.fixture
def many() -> Any:
    """As many connections as this process may have, MANY at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(MANY, hard - OTHER_FILES) if hard != resource.RLIM_INFINITY else MANY
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_idle_connections_are_held_while_a_tenant_is_served(
    many: int, tmp_path: Path, request_of: Callable[..., Any], rows_of: Callable[..., Any]
) -> None:
    held: list[socket.socket] = []
    async with serve_before_a_fake(tmp_path) as (pid, address), grpc.aio.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ask(value: int) -> None:
            assert rows_of(await stub.ModelInfer(request_of([[value]]), timeout=60)) == [[value]]

        await ask(0)
        before = resident_bytes(pid)
        try:
            while len(held) < many:
                held += await asyncio.gather(*(agreed(address) for _ in range(min(100, many - len(held)))))
                await ask(len(held))
            grown = resident_bytes(pid) - before
            print(f"\n{len(held)} connections: {grown >> 20} MiB, {grown / len(held) / 1024:.1f} KiB each")
            assert grown < len(held) * CONNECTION_BYTES
        finally:
            for peer in held:
                peer.close()
        await ask(1)


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Limits under which a silent peer is gone within a second."""
    monkeypatch.setattr(patience, "PING_TIMEOUT_S", 0.5)
    return {"keepalive_s": 0.3, "drain_s": 1}


async def test_peer_that_stopped_answering_is_closed_and_its_queued_request_freed(
    serve: Any, request_of: Any, rows_of: Any, eventually: Any, short_silence: dict[str, Any]
) -> None:
    served = await serve(limits=short_silence, tenants={"default": {"max_in_flight": 1}})
    served.triton.hold()
    ahead = asyncio.ensure_future(served.infer(request_of([[1]])))
    await eventually(lambda: served.app.snapshot().in_flight == 1)
    peer = await agreed(served.addresses.grpc)
    message = request_of([[2]]).SerializeToString()
    await asyncio.get_running_loop().sock_sendall(peer, b"".join(infer_frames(served.addresses.grpc, message)))
    await eventually(lambda: served.app.snapshot().queued == 1)
    await eventually(lambda: served.app.snapshot().queued == 0)
    assert served.app.snapshot().ended["CANCELLED"] == 1
    await closed_by_the_server(peer)
    served.triton.release()
    assert rows_of(await ahead) == [[1]]
    assert len(served.triton.requests) == 1


async def test_peer_that_stopped_in_the_middle_of_a_message_is_closed(
    serve: Any, request_of: Any, rows_of: Any, short_silence: dict[str, Any]
) -> None:
    served = await serve(limits=short_silence)
    peer = await agreed(served.addresses.grpc)
    headers, data = infer_frames(served.addresses.grpc, request_of([[2]]).SerializeToString())
    await asyncio.get_running_loop().sock_sendall(peer, headers + data[: len(data) // 2])
    await closed_by_the_server(peer)
    assert served.triton.requests == []
    assert rows_of(await served.infer(request_of([[1]]))) == [[1]]


async def test_peer_that_says_nothing_is_closed_before_the_handshake(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "HANDSHAKE_S", 0.3)
    served = await serve()
    host, _, port = served.addresses.grpc.rpartition(":")
    peer = socket.socket()
    peer.setblocking(False)
    await asyncio.get_running_loop().sock_connect(peer, (host, int(port)))
    await closed_by_the_server(peer)


async def test_peer_that_pings_without_pause_is_closed(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve()
    peer = await agreed(served.addresses.grpc)
    await asyncio.get_running_loop().sock_sendall(peer, b"".join(frame(PING, 0, 0, bytes([n] * 8)) for n in range(20)))
    await closed_by_the_server(peer)
    assert rows_of(await served.infer(request_of([[1]]))) == [[1]]
