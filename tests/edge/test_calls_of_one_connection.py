"""More calls on one connection than it may have open: stock clients wait their turn, those beyond are reset unread."""

import asyncio
import struct
from typing import Any

import grpc
import hpack

from bench.http2.frame import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    frame,
)

LIMITS = {"max_queued": 10, "calls_per_connection": 20, "drain_s": 1}
ONE_AT_A_TIME = {"default": {"max_in_flight": 1}}
CALLS = 100


async def test_stock_client_with_more_calls_than_allowed_has_every_one_answered_refused_or_reset_unread(
    serve: Any, request_of: Any, rows_of: Any, eventually: Any
) -> None:
    served = await serve(limits=LIMITS, tenants=ONE_AT_A_TIME)
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n]]), timeout_s=120)) for n in range(CALLS)]
    await eventually(lambda: sum(call.done() for call in calls) >= CALLS - 20)
    snapshot = served.app.snapshot()
    assert snapshot.queued + snapshot.in_flight <= LIMITS["calls_per_connection"]
    served.triton.release()
    answered = 0
    for number, ended in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
        if isinstance(ended, grpc.aio.AioRpcError):
            if ended.code() is grpc.StatusCode.UNAVAILABLE:
                # gRPC counts a call until its memory is free, which no client sees: it may come a moment too early.
                assert f"RST_STREAM with error code {REFUSED_STREAM}" in ended.details()
            else:
                assert ended.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert dict(tuple(ended.trailing_metadata()))["fairlane-reason"] == "QUEUE_FULL"
        else:
            assert rows_of(ended) == [[number]]
            answered += 1
    assert answered >= LIMITS["max_queued"]
    assert sum(len(each.raw_input_contents[0]) // 8 for each in served.triton.requests) == answered


async def test_peer_that_opens_more_calls_than_it_was_told_has_those_beyond_reset_or_all(
    serve: Any, request_of: Any, rows_of: Any, eventually: Any
) -> None:
    served = await serve(limits=LIMITS, tenants=ONE_AT_A_TIME)
    served.triton.hold()
    address = served.addresses.grpc
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    await _until(reader, lambda kind, flags, _: kind == SETTINGS and flags == ACK)
    writer.write(frame(SETTINGS, ACK, 0) + _calls(address, request_of([[1]]).SerializeToString()))
    # grpcio resets the calls beyond; nghttp2 takes who does so for broken, and ends the connection.
    refused = struct.pack("!I", REFUSED_STREAM)
    await _until(reader, lambda kind, _, payload: (kind == RST_STREAM and payload == refused) or kind == GOAWAY)
    snapshot = served.app.snapshot()
    assert snapshot.queued + snapshot.in_flight <= LIMITS["calls_per_connection"]
    writer.transport.abort()
    await eventually(lambda: served.app.snapshot().queued == 0)
    served.triton.release()
    assert rows_of(await served.infer(request_of([[2]]))) == [[2]]


def _calls(address: str, message: bytes) -> bytes:
    """So many ModelInfer at once, whatever the server said of how many it takes."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/inference.GRPCInferenceService/ModelInfer")]
    fields += [(":authority", address), ("content-type", "application/grpc"), ("te", "trailers")]
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    block = encoder.encode(fields)
    body = b"\0" + struct.pack("!I", len(message)) + message
    streams = range(1, 2 * CALLS, 2)
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, body) for stream in streams
    )


async def _until(reader: asyncio.StreamReader, found: Any) -> None:
    """Read frames until one is it."""
    async with asyncio.timeout(60):
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if found(head[3], head[4], payload):
                return
