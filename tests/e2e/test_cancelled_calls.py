"""Thousands of callers that leave, before the real Triton of a release that ends when its calls are cancelled."""

import asyncio

from bench.cancellations import CancellingClients, add_model
from scheduler.app import App
from scheduler.config import Config
from tests.real_triton import ModelRepository, TritonFactory

# Straight at the server, as `python -m bench.cancellations` sends them, it ended after 12,000 and after 98,000.
CALLS = 6000


async def test_tritonserver_outlives_thousands_of_deadlines_and_cancellations(
    models: ModelRepository, start_triton: TritonFactory
) -> None:
    add_model(models.path)
    server = start_triton(models)
    pid = server.triton.pid
    settings = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "backends": [{"name": "real", "grpc": server.address.grpc}],
    }
    app = App(Config.model_validate(settings))
    clients = CancellingClients((await app.start()).grpc, work_s=0.001, most_s=0.01)
    try:
        await clients.send(16, CALLS, asyncio.get_running_loop().create_future())
        assert await clients.answers()
    finally:
        await clients.close()
        stopped = await app.stop()
    assert stopped
    assert clients.ended.total() >= CALLS
    assert clients.ended["CANCELLED"] + clients.ended["DEADLINE_EXCEEDED"] > CALLS // 8
    assert set(clients.ended) <= {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}
    assert server.triton.pid == pid
