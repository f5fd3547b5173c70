"""Does Triton survive callers that leave? Thousands of deadlines and cancellations a minute, straight at tritonserver.

`python -m bench.cancellations` starts the embedded tritonserver with one small model, sends unary calls whose deadlines
and cancellations come about when their answers do, and says whether the server is alive. Release 2.51.0 (24.10) ends
with signal 11 within seconds to a minute: triton-inference-server/server 7368, 7840, 8034, 8078. With `--fairlane` the
same calls go through a Fairlane in front of it, which cancels none of them there (scheduler/triton/uncancelled.py).
"""

import asyncio
import random
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import click
import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from scheduler.triton.launcher import EmbeddedTriton

MODEL: Final = "sleeps"
CONFIG: Final = """backend: "python"
max_batch_size: 8
input { name: "SECONDS" data_type: TYPE_FP32 dims: 1 }
output { name: "SLEPT" data_type: TYPE_FP32 dims: 1 }
instance_group { count: 1 kind: KIND_CPU }
dynamic_batching { }
"""
SOURCE: Final = """import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        asked = [pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy() for request in requests]
        time.sleep(max(float(each.max()) for each in asked))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SLEPT", each)]) for each in asked]
"""
CHANNELS: Final = 8


def add_model(repository: Path) -> None:
    """Write a model that sleeps for as long as the longest row of its batch asks, in seconds."""
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(SOURCE)
    (version.parent / "config.pbtxt").write_text(CONFIG)


def request_of(seconds: float) -> Any:
    """A request of one row to that model."""
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="SECONDS", datatype="FP32", shape=[1, 1])
    request.raw_input_contents.append(np.array([[seconds]], np.float32).tobytes())
    return request


class CancellingClients:
    """Callers that leave about when their answers come.

    Args:
        address: HOST:PORT of a `GRPCInferenceService` with the model.
        work_s: what the model is asked to take, from nothing up to this.
        most_s: of a caller's patience.

    Attributes:
        ended: calls by how they ended: `OK`, or the name of a gRPC code.
    """

    def __init__(self, address: str, work_s: float, most_s: float) -> None:
        self.ended: Counter[str] = Counter()
        self._work_s = work_s
        self._most_s = most_s
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CHANNELS)]
        self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels]

    async def send(self, callers: int, calls: int, server: "asyncio.Future[int]") -> None:
        """Send so many calls from so many callers, one after the other from each, while the server lives."""
        each = -(-calls // callers)
        await asyncio.gather(*(self._caller(number, each, server) for number in range(callers)))

    async def answers(self) -> bool:
        """Whether a patient caller gets an answer."""
        try:
            await self._stubs[0].ModelInfer(request_of(0.0), timeout=30)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels:
            await channel.close()

    async def _caller(self, number: int, calls: int, server: "asyncio.Future[int]") -> None:
        chance = random.Random(number)  # noqa: S311  not for secrets
        stub = self._stubs[number % CHANNELS]
        for _ in range(calls):
            if server.done():
                return
            request, patience_s = request_of(chance.uniform(0, self._work_s)), chance.uniform(0.0005, self._most_s)
            try:
                if chance.random() < 0.5:
                    await stub.ModelInfer(request, timeout=patience_s)
                else:
                    await asyncio.wait_for(stub.ModelInfer(request), patience_s)
                self.ended["OK"] += 1
            except TimeoutError:
                self.ended["CANCELLED"] += 1
            except grpc.aio.AioRpcError as error:
                self.ended[error.code().name] += 1


async def _try(callers: int, calls: int, work_s: float, most_s: float, *, fairlane: bool) -> bool:
    """Whether the server lives and answers afterwards; prints what was seen."""
    async with AsyncExitStack() as stack:
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fairlane_cancellations_")))
        add_model(repository)
        triton = EmbeddedTriton(repository)
        stack.push_async_callback(triton.stop, 0.0)
        address = (await triton.start()).grpc
        server = asyncio.ensure_future(triton.wait())
        if fairlane:
            settings = {
                "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
                "backends": [{"name": "triton", "grpc": address}],
            }
            app = App(Config.model_validate(settings))
            address = (await app.start()).grpc
            stack.push_async_callback(app.stop)
        clients = CancellingClients(address, work_s, most_s)
        stack.push_async_callback(clients.close)
        began = asyncio.get_running_loop().time()
        await clients.send(callers, calls, server)
        took_s = asyncio.get_running_loop().time() - began
        await asyncio.wait({server}, timeout=2.0)  # a call that was cancelled may still be at work
        sent = clients.ended.total()
        alive = not server.done() and await clients.answers()
        ended = ", ".join(f"{count} {how}" for how, count in sorted(clients.ended.items()))
        click.echo(f"{sent} calls in {took_s:.1f} s, {60 * sent / took_s:,.0f} a minute: {ended}")
        click.echo("tritonserver is alive and answers" if alive else f"tritonserver ended: {await triton.wait()}")
        return alive


@click.command()
@click.option("--callers", default=16, show_default=True, help="Callers at a time.")
@click.option("--calls", default=100_000, show_default=True, help="Calls in all.")
@click.option("--work-ms", default=0.0, show_default=True, help="What a request takes at the model, at most.")
@click.option("--most-ms", default=20.0, show_default=True, help="A caller's patience, at most.")
@click.option("--fairlane", is_flag=True, help="Through Fairlane, and not straight at tritonserver.")
def main(callers: int, calls: int, work_ms: float, most_ms: float, fairlane: bool) -> None:
    """Send calls that end early until the embedded tritonserver ends, or all have been sent."""
    alive = asyncio.run(_try(callers, calls, work_ms / 1000, most_ms / 1000, fairlane=fairlane))
    sys.exit(0 if alive else 1)


if __name__ == "__main__":
    main()
