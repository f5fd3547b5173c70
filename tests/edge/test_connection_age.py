"""Connections end when they are of age, and no call of a stock client does."""

import asyncio
from typing import Any

import grpc
import pytest
import tritonclient.grpc.aio as aio_client
from tritonclient.grpc import service_pb2_grpc

from tests.edge.test_keepalive import tapped, tensor_of  # noqa: F401 - a fixture

AGES = 3
LONG_S = 60


async def test_a_stock_clients_calls_go_on_while_its_connections_end(serve: Any, tapped: Any) -> None:  # noqa: F811
    served = await serve(limits={"connection_age_s": 0.2, "drain_s": 1})
    tap, address = await tapped(served.addresses.grpc)
    async with aio_client.InferenceServerClient(address) as client, asyncio.timeout(LONG_S):

        async def ask() -> int:
            answers = 0
            while tap.connections <= AGES:
                answer = await client.infer("identity", [tensor_of(answers)])
                assert answer.as_numpy("OUTPUT").tolist() == [[answers]]
                answers += 1
            return answers

        assert min(await asyncio.gather(*(ask() for _ in range(8)))) > 0


async def test_a_call_that_is_under_way_outlives_its_connections_age(serve: Any, tapped: Any) -> None:  # noqa: F811
    served = await serve(limits={"connection_age_s": 0.2, "drain_s": 1})
    tap, address = await tapped(served.addresses.grpc)
    served.triton.hold()
    async with aio_client.InferenceServerClient(address) as client, asyncio.timeout(LONG_S):
        held = asyncio.ensure_future(client.infer("identity", [tensor_of(7)]))
        await served.triton.until(lambda triton: len(triton.in_flight) == 1)
        while tap.connections < 2:  # those that come meanwhile have another one
            await client.is_server_live()
        served.triton.release()
        assert (await held).as_numpy("OUTPUT").tolist() == [[7]]


async def test_grace_bounds_what_a_call_may_take_on_an_old_connection(serve: Any, request_of: Any) -> None:
    served = await serve(limits={"connection_age_s": 0.1, "connection_grace_s": 0.1, "drain_s": 1})
    served.triton.hold()
    async with grpc.aio.insecure_channel(served.addresses.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(request_of([[1]]), timeout=LONG_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
