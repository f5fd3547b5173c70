"""The life of a client, its questions to the server, and its use by many at once."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fairlane
import pytest

MANY = 200


def test_questions(client):
    assert client.live()
    assert client.ready()
    assert client.model_ready("echo")
    assert not client.model_ready("other")


def test_not_ready_is_false(client, server):
    server.server_ready = False
    assert not client.ready()


def test_nothing_there_is_neither_live_nor_ready(connect, silent_address):
    client = connect(silent_address)
    assert not client.live()
    assert not client.ready()
    assert not client.model_ready("echo")


def test_model_metadata(client):
    tensor = fairlane.TensorSpec("x", "FP32", (-1, 3))
    assert client.model_metadata("echo") == fairlane.ModelMetadata("echo", ("1", "2"), "fake", (tensor,), (tensor,))


def test_metadata_of_unknown_model(client):
    with pytest.raises(fairlane.ModelNotFound, match="unknown model 'other'") as caught:
        client.model_metadata("other")
    assert caught.value.model == "other"


@pytest.mark.parametrize(
    "use",
    [lambda c: c.infer("m", {}), lambda c: c.ready(), lambda c: c.live(), lambda c: c.model_metadata("m")],
    ids=["infer", "ready", "live", "model_metadata"],
)
def test_use_after_close_is_a_clear_error(client, server, use):
    client.ready()
    client.close()
    client.close()
    with pytest.raises(fairlane.ClientClosed, match=rf"the client of {server.address} is closed"):
        use(client)


def test_close_of_an_unused_client(connect):
    client = connect()
    client.close()
    with pytest.raises(fairlane.ClientClosed):
        client.infer("m", {})


def test_with_closes_the_sync_client(server):
    with fairlane.Client(server.address) as client:
        client.infer("echo", {})
    with pytest.raises(fairlane.ClientClosed):
        client.infer("echo", {})


async def test_async_with_closes_the_aio_client(server):
    async with fairlane.aio.Client(server.address) as client:
        await client.infer("echo", {})
    with pytest.raises(fairlane.ClientClosed):
        await client.infer("echo", {})


def test_repr_shows_state_and_no_key(connect, server):
    client = connect(tenant="acme", api_key="secret")
    assert server.address in repr(client.client)
    assert "open" in repr(client.client)
    assert "acme" in repr(client.client)
    assert "secret" not in repr(client.client)
    client.close()
    assert "closed" in repr(client.client)


def test_threads_share_a_sync_client(server):
    with fairlane.Client(server.address) as client, ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda i: client.infer("echo", {"x": [i]}, request_id=str(i)), range(MANY))
        assert [(int(r["x"][0]), r.request_id) for r in results] == [(i, str(i)) for i in range(MANY)]


async def test_tasks_share_an_aio_client(server):
    async with fairlane.aio.Client(server.address) as client:
        results = await asyncio.gather(*(client.infer("echo", {"x": [i]}) for i in range(MANY)))
    assert [int(r["x"][0]) for r in results] == list(range(MANY))


def test_import_brings_in_neither_the_scheduler_nor_google_rpc():
    code = "import fairlane, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    foreign = ("scheduler", "google.rpc", "grpc_status", "torch", "transformers", "pydantic")
    assert [name for name in run.stdout.split() if name.startswith(foreign)] == []
