"""The RPCs beside ModelInfer, and the HTTP side."""

from typing import Any

import aiohttp
import grpc
import pytest
from tritonclient.grpc import service_pb2


async def test_health_and_metadata(serve: Any) -> None:
    served = await serve()
    assert (await served.stub.ServerLive(service_pb2.ServerLiveRequest())).live
    assert (await served.stub.ServerReady(service_pb2.ServerReadyRequest())).ready
    assert (await served.stub.ModelReady(service_pb2.ModelReadyRequest(name="identity"))).ready
    assert (await served.stub.ServerMetadata(service_pb2.ServerMetadataRequest())).name == "fake"
    metadata = await served.stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="identity"))
    assert metadata.inputs[0].name == "INPUT"
    config = await served.stub.ModelConfig(service_pb2.ModelConfigRequest(name="two_instances"))
    assert config.config.instance_group[0].count == 2
    index = await served.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest())
    assert {model.name for model in index.models} >= {"identity", "unbatched"}


async def test_backends_own_error_is_relayed(serve: Any) -> None:
    served = await serve()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ModelConfig(service_pb2.ModelConfigRequest(name="nope"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_http_side_tells_health_readiness_and_state(serve: Any) -> None:
    served = await serve()
    async with aiohttp.ClientSession(f"http://{served.addresses.http}") as session:
        for path in ("/healthz", "/readyz"):
            async with session.get(path) as reply:
                assert reply.status == 200
        async with session.get("/debug/snapshot") as reply:
            snapshot = await reply.json()
            assert [each["name"] for each in snapshot["classes"]] == ["interactive", "background"]
        await served.triton.stop()
        while served.app.ready:
            async with session.get("/healthz") as reply:
                assert reply.status == 200
        async with session.get("/readyz") as reply:
            assert reply.status == 503
