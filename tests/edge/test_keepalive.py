"""Keepalive as stock clients set it: who pings now and then keeps the connection, and gets every answer.

Times are shorter than in production by the same factor on both sides: the server allows a ping each CLIENT_PING_S.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as aio_client
from tritonclient.grpc import KeepAliveOptions, service_pb2, service_pb2_grpc

from bench.http2.frame import ACK, PING, PREFACE
from scheduler.edge import patience

ALLOWED_MS = 100
EVERY_MS = 3 * ALLOWED_MS
PINGS = 4


@pytest.fixture
def short_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "CLIENT_PING_S", ALLOWED_MS / 1000)


class Tap:
    """A wire with an ear on it: how many connections it carried, and how many pings its clients sent."""

    def __init__(self, to: str) -> None:
        self._to = to
        self.connections = 0
        self.pings = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        host, _, port = self._to.rpartition(":")
        back, forth = await asyncio.open_connection(host, int(port))
        answers = asyncio.ensure_future(self._answers(back, writer))
        try:
            forth.write(await reader.readexactly(len(PREFACE)))
            while True:
                head = await reader.readexactly(9)
                self.pings += head[3] == PING and not head[4] & ACK
                forth.write(head + await reader.readexactly(int.from_bytes(head[:3], "big")))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            forth.transport.abort()
            await asyncio.gather(answers, return_exceptions=True)

    async def _answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await back.read(65536):
            writer.write(part)
        writer.close()


@pytest.fixture
async def tapped() -> AsyncIterator[Callable[..., Any]]:
    """`await tapped(address)`: a tap on the way there, and the address that leads through it."""
    listening = []

    async def tap(address: str) -> tuple[Tap, str]:
        one = Tap(address)
        listening.append(await asyncio.start_server(one.carry, "127.0.0.1", 0))
        return one, f"127.0.0.1:{listening[-1].sockets[0].getsockname()[1]}"

    yield tap
    for each in listening:
        each.close()


def keepalive(every_ms: int) -> KeepAliveOptions:
    """The stock client's most eager settings: pings with and without calls, as many as it likes."""
    return KeepAliveOptions(
        keepalive_time_ms=every_ms,
        keepalive_timeout_ms=20_000,
        keepalive_permit_without_calls=True,
        http2_max_pings_without_data=0,
    )


def tensor_of(value: int) -> Any:
    tensor = aio_client.InferInput("INPUT", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.array([[value]], dtype=np.int64))
    return tensor


async def test_stock_client_that_pings_without_calls_keeps_its_connection(
    serve: Any, tapped: Any, eventually: Any, short_pings: None
) -> None:
    served = await serve()
    tap, address = await tapped(served.addresses.grpc)
    async with aio_client.InferenceServerClient(address, keepalive_options=keepalive(EVERY_MS)) as client:
        for value in (1, 2):
            assert (await client.infer("identity", [tensor_of(value)])).as_numpy("OUTPUT").tolist() == [[value]]
            await eventually(lambda most=PINGS * value: tap.pings >= most)  # type: ignore[misc]
    assert tap.connections == 1


async def test_stock_client_that_pings_while_it_waits_gets_its_answer(
    serve: Any, tapped: Any, eventually: Any, short_pings: None
) -> None:
    served = await serve()
    tap, address = await tapped(served.addresses.grpc)
    served.triton.hold()
    async with aio_client.InferenceServerClient(address, keepalive_options=keepalive(EVERY_MS)) as client:
        asked = asyncio.ensure_future(client.infer("identity", [tensor_of(3)]))
        await eventually(lambda: tap.pings >= PINGS)
        served.triton.release()
        assert (await asked).as_numpy("OUTPUT").tolist() == [[3]]
    assert tap.connections == 1


async def test_client_that_pings_too_often_is_closed_comes_back_and_is_served(
    serve: Any, tapped: Any, eventually: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve()
    tap, address = await tapped(served.addresses.grpc)
    options = [("grpc.keepalive_time_ms", 50), ("grpc.keepalive_permit_without_calls", 1)]
    async with grpc.aio.insecure_channel(address, [*options, ("grpc.http2.max_pings_without_data", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=30)).live
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)  # closed by the server
        assert rows_of(await stub.ModelInfer(request_of([[4]]), timeout=30, wait_for_ready=True)) == [[4]]
    assert tap.connections > 1
