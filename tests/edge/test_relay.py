"""The RPCs beside ModelInfer, and the HTTP side."""

from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import grpc
import pytest
from tritonclient.grpc import service_pb2

from scheduler.triton.fake import FakeModel, FakeTriton


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


SHARED_MEMORY = {
    "SystemSharedMemoryStatus": service_pb2.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(name="region", key="/k", byte_size=8),
    "SystemSharedMemoryUnregister": service_pb2.SystemSharedMemoryUnregisterRequest(name="region"),
    "CudaSharedMemoryStatus": service_pb2.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": service_pb2.CudaSharedMemoryRegisterRequest(
        name="region", raw_handle=b"\0" * 64, device_id=0, byte_size=8
    ),
    "CudaSharedMemoryUnregister": service_pb2.CudaSharedMemoryUnregisterRequest(name="region"),
}


@pytest.mark.parametrize("method", SHARED_MEMORY)
async def test_shared_memory_with_several_backends_is_refused_and_says_why(serve: Any, method: str) -> None:
    async with AsyncExitStack() as stack:
        backends = []
        for name in ("left", "right"):
            triton = FakeTriton((FakeModel("identity"),))
            backends.append({"name": name, "grpc": await triton.start()})
            stack.push_async_callback(triton.stop)
        served = await serve(backends=backends, tenants={"default": {"admin": True}})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(served.stub, method)(SHARED_MEMORY[method], timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert dict(tuple(caught.value.trailing_metadata() or ()))["fairlane-reason"] == "UNSUPPORTED"
        details = str(caught.value.details())
        for word in (method, "2 backends", "left, right", "shared memory needs exactly one"):
            assert word in details


@pytest.mark.parametrize("gone", [0, 1])
async def test_a_backend_that_has_just_gone_is_passed_over(serve: Any, gone: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("scheduler.triton.catalog.PROBE_INTERVAL_S", 3600.0)
    async with AsyncExitStack() as stack:
        tritons = [FakeTriton((FakeModel("identity"),)) for _ in range(2)]
        addresses = [await triton.start() for triton in tritons]
        for triton in tritons:
            stack.push_async_callback(triton.stop)
        served = await serve(backends=[{"name": f"b{n}", "grpc": each} for n, each in enumerate(addresses)])
        await tritons[gone].stop()
        assert (await served.stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=30)).name == "fake"
        config = await served.stub.ModelConfig(service_pb2.ModelConfigRequest(name="identity"), timeout=30)
        assert config.config.name == "identity"
        assert (await served.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=30)).models
        # Both are asked for these; the fake that is there has none.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name="identity"), timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
