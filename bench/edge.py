"""What a request costs outside gRPC: `python -m bench.edge` prints CPU microseconds from message to answer or refusal.

The service's own handler is called with a context that does nothing, in front of a backend in this process. Refusals
are those of a full queue; what is accepted comes as many at a time as a batch holds. The least of several repeats is
what the code costs, the rest is the machine; caches are warm here, and a live server pays more for the same code.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

import click
import grpc
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import model_config_pb2, service_pb2

from scheduler.config import Config
from scheduler.core.scheduler import Scheduler
from scheduler.driver import Driver
from scheduler.edge.audit import Audit
from scheduler.edge.service import InferenceService
from scheduler.telemetry.hooks import NULL, Telemetry
from scheduler.telemetry.observatory import recorder_of
from scheduler.triton.catalog import Catalog
from scheduler.triton.pool import Call, Pool

MODEL: Final = "digits"
# As one image of 8 x 8 pixels and its ten scores.
PIXELS: Final = 64
SCORES: Final = 10
BATCH: Final = 32
QUEUED: Final = 64
# A refusal takes a few turns of the loop.
SETTLED_S: Final = 0.05
METADATA: Final = (
    ("user-agent", "grpc-python-asyncio/1.78.2 grpc-c/52.0.0 (linux; chttp2)"),
    ("x-priority", "background"),
    ("x-tenant-id", "batch"),
)


class Context:
    """A call that nobody made."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What the client sends with it."""
        return METADATA

    def time_remaining(self) -> None:
        """It has no deadline."""

    def auth_context(self) -> dict[str, Any]:
        """It came without a certificate."""
        return {}

    def set_trailing_metadata(self, trailers: Any) -> None:
        """Nobody reads them."""

    async def abort(self, code: Any, message: str, trailers: Any) -> NoReturn:
        """End the call."""
        raise grpc.aio.AbortError


class Backend:
    """A Triton within this process: answers at once while `open`, and not before."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self._config = model_config_pb2.ModelConfig(
            name=MODEL,
            max_batch_size=BATCH,
            input=[{"name": "image", "data_type": "TYPE_FP32", "dims": [PIXELS]}],
            output=[{"name": "scores", "data_type": "TYPE_FP32", "dims": [SCORES]}],
        )

    async def ServerLive(self, request: Any, **about: Any) -> Any:  # noqa: N802
        """It lives."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerMetadata(self, request: Any, **about: Any) -> Any:  # noqa: N802
        """A release whose calls may be cancelled."""
        return service_pb2.ServerMetadataResponse(name="local", version="2.57.0")

    async def RepositoryIndex(self, request: Any, **about: Any) -> Any:  # noqa: N802
        """Its one model."""
        return service_pb2.RepositoryIndexResponse(models=[{"name": MODEL, "version": "1", "state": "READY"}])

    async def ModelConfig(self, request: Any, **about: Any) -> Any:  # noqa: N802
        """That model's inputs and outputs."""
        return service_pb2.ModelConfigResponse(config=self._config)

    def ModelInfer(self, request: Any, **about: Any) -> Any:  # noqa: N802
        """Zeros for every row; like a call it may be waited for, and tells when it has ended."""
        return asyncio.ensure_future(self._infer(request))

    async def _infer(self, request: Any) -> Any:
        await self.open.wait()
        rows = request.inputs[0].shape[0]
        return service_pb2.ModelInferResponse(
            model_name=MODEL,
            model_version="1",
            outputs=[{"name": "scores", "datatype": "FP32", "shape": [rows, SCORES]}],
            raw_output_contents=[bytes(4 * SCORES * rows)],
        )


class LocalPool(Pool):
    """The pool with a backend that no channel leads to."""

    def __init__(self, backend: Backend, telemetry: Telemetry) -> None:
        super().__init__(telemetry)
        self._stubs["local"] = backend


class Bench:
    """A service without a port. Make it within the event loop."""

    def __init__(self, *, telemetry: bool) -> None:
        config = Config.model_validate(
            {
                "classes": [{"name": "interactive", "wait_ms": 50}, {"name": "background", "max_queued": QUEUED}],
                "telemetry": {"enabled": telemetry},
            }
        )
        listening = recorder_of(config) or NULL
        self.backend = Backend()
        pool = LocalPool(self.backend, listening)
        self._driver: Driver[Call, Any] = Driver(Scheduler(config.core_settings()), pool, listening)
        self.catalog = Catalog(pool, self._driver.set_backend, self._driver.offers)
        self._audit = Audit(None)
        self._service = InferenceService(config, self._driver, self.catalog, pool, self._audit, listening)
        request = service_pb2.ModelInferRequest(
            model_name=MODEL, inputs=[{"name": "image", "datatype": "FP32", "shape": [1, PIXELS]}]
        )
        request.raw_input_contents.append(bytes(4 * PIXELS))
        self._message = request.SerializeToString()

    async def request(self) -> bool:
        """One call from its bytes to its end; False where it was refused."""
        request = service_pb2.ModelInferRequest.FromString(self._message)
        try:
            await self._service.ModelInfer(request, Context())  # type: ignore[arg-type]
        except grpc.aio.AbortError:
            return False
        return True

    async def fill(self) -> list[asyncio.Task[bool]]:
        """Send until the backend has taken what it takes and the queue is full: the next one is refused."""
        waiting: list[asyncio.Task[bool]] = []
        while True:
            sent = [asyncio.create_task(self.request()) for _ in range(BATCH)]
            await asyncio.wait(sent, timeout=SETTLED_S)
            if all(each.done() for each in sent):
                return waiting
            waiting += sent

    async def close(self) -> None:
        """End what is left."""
        await self._driver.close()
        self._audit.close()


async def cost_us(run: Callable[[], Awaitable[None]], requests: int, repeats: int) -> list[float]:
    """CPU microseconds a request, for each repeat."""
    costs = []
    for _ in range(repeats):
        began = time.process_time()
        await run()
        costs.append((time.process_time() - began) / requests * 1e6)
    return costs


async def measure(requests: int, repeats: int, *, telemetry: bool) -> dict[str, list[float]]:
    """CPU microseconds of a refused and of an accepted request, for each repeat."""
    bench = Bench(telemetry=telemetry)
    await bench.catalog.refresh()
    waiting = await bench.fill()

    async def refused() -> None:
        for _ in range(requests):
            if await asyncio.create_task(bench.request()):
                raise RuntimeError("expected a refusal of the full queue, got an answer")

    async def accepted() -> None:
        for _ in range(requests // BATCH):
            if not all(await asyncio.gather(*(asyncio.create_task(bench.request()) for _ in range(BATCH)))):
                raise RuntimeError("expected an answer to each of a batch, got a refusal")

    costs = {"refused": await cost_us(refused, requests, repeats)}
    bench.backend.open.set()
    await asyncio.gather(*waiting)
    costs["accepted"] = await cost_us(accepted, requests // BATCH * BATCH, repeats)
    await bench.close()
    return costs


@click.command()
@click.option("--requests", default=4000, show_default=True, type=click.IntRange(min=BATCH))
@click.option("--repeats", default=7, show_default=True, type=click.IntRange(min=1))
@click.option("--telemetry/--no-telemetry", default=True, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def main(requests: int, repeats: int, *, telemetry: bool, as_json: bool) -> None:
    """CPU that one request costs in the scheduler's process, gRPC left out."""
    costs = asyncio.run(measure(requests, repeats, telemetry=telemetry))
    if as_json:
        click.echo(json.dumps({"requests": requests, "cpu_us": costs}))
        return
    table = Table(title=f"CPU microseconds a request, {repeats} repeats of {requests}")
    for heading in ("request", "least", "median", "most"):
        table.add_column(heading, justify="left" if heading == "request" else "right")
    for name, values in costs.items():
        table.add_row(name, *(f"{value:.1f}" for value in (min(values), statistics.median(values), max(values))))
    Console().print(table)


if __name__ == "__main__":
    main()
