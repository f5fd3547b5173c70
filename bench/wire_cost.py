"""What carrying gRPC costs: `python -m bench.wire_cost` prints CPU microseconds a request over each wire, side by side.

For each wire a service is started as a process of its own, in front of a backend in this process; what is counted is
the CPU time of that process, user and system. Both are asked in turn, several times, in one run: read the ratio. The
echo is the server alone, without the scheduler and without a backend.
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import grpc
import numpy as np
import yaml
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import service_pb2

from bench.http2.connection import CallStatus, Http2Connection
from scheduler.config import Limits
from scheduler.edge.grpcio_server import GrpcioServer
from scheduler.triton.fake import FakeModel, FakeTriton
from scheduler.wire import availability

MODEL: Final = "identity"
VALUES: Final = 64
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
ECHO: Final = "/echo.Echo/Echo"
TICKS: Final = os.sysconf("SC_CLK_TCK")
# Connections, and calls outstanding on each.
SHAPES: Final = ((4, 32), (32, 1), (1, 1))


class Load(NamedTuple):
    """What a service is asked."""

    address: str
    path: str
    message: bytes


def cpu_s(pid: int) -> float:
    """CPU time of the process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


async def answered(load: Load, connections: int, outstanding: int, seconds: float) -> int:
    """Ask for so long with so many calls always outstanding; the number of answers."""
    loop = asyncio.get_running_loop()
    wires = [await Http2Connection.connect(load.address, load.path, ()) for _ in range(connections)]
    until = loop.time() + seconds
    count = 0
    left = connections * outstanding
    over: asyncio.Future[None] = loop.create_future()

    def next_of(wire: Http2Connection) -> Any:
        def ended(end: CallStatus) -> None:
            nonlocal count, left
            if end.code is not grpc.StatusCode.OK:
                if not over.done():
                    over.set_exception(RuntimeError(f"{end.code.name}: {end.details}"))
                return
            count += 1
            if loop.time() < until:
                wire.call(load.message, (ended,))
                return
            left -= 1
            if not left and not over.done():
                over.set_result(None)

        return ended

    for wire in wires:
        wire.call(load.message, [next_of(wire)] * outstanding)
    try:
        await over
    finally:
        for wire in wires:
            wire.close()
    return count


@contextlib.asynccontextmanager
async def process(*command: str) -> AsyncIterator[tuple[int, str]]:
    """A process that prints its gRPC address last on its first line after `gRPC on`: its id, and the address."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert started.stdout is not None
        line = (await started.stdout.readline()).decode()
        yield started.pid, line.rpartition("gRPC on ")[2].split(",")[0].strip()
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


@contextlib.asynccontextmanager
async def service(wire: str, backend: str, folder: Path) -> AsyncIterator[tuple[int, str]]:
    """`fairlane serve` over this wire."""
    settings = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "wire": wire},
        "backends": [{"name": "fake", "grpc": backend}],
    }
    file = folder / f"{wire}.yaml"
    file.write_text(yaml.safe_dump(settings))
    async with process("-m", "scheduler", "serve", "--config", str(file)) as started:
        yield started


async def echo(wire: str) -> None:
    """Serve an echo over this wire until the process is ended."""
    server: Any = GrpcioServer(Limits())
    if wire == "native":
        from scheduler.edge.native_server import NativeServer  # noqa: PLC0415 - its extension may not be there

        server = NativeServer(Limits())

    async def answer(request: bytes, context: Any) -> bytes:
        del context
        return request

    server.add_registered_method_handlers("echo.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(answer)})
    port = await server.listen("127.0.0.1", 0, None)
    print(f"gRPC on 127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


async def measured(wires: list[str], repeats: int, seconds: float) -> dict[str, dict[str, float]]:
    """CPU microseconds a request: by what is asked and in which shape, by wire; medians."""
    row = np.zeros((1, VALUES), dtype=np.int64)
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="INPUT", datatype="INT64", shape=row.shape)
    request.raw_input_contents.append(row.tobytes())
    message = request.SerializeToString()
    triton = FakeTriton((FakeModel(MODEL, max_batch_size=32),))
    found: dict[str, dict[str, list[float]]] = {}
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        backend = await triton.start()
        stack.push_async_callback(triton.stop)
        loads: list[tuple[str, str, int, Load]] = []
        for wire in wires:
            pid, address = await stack.enter_async_context(service(wire, backend, folder))
            loads.append(("service", wire, pid, Load(address, INFER, message)))
            pid, address = await stack.enter_async_context(process("-m", "bench.wire_cost", "--echo", wire))
            loads.append(("echo", wire, pid, Load(address, ECHO, message)))
        for _ in range(repeats):
            for connections, outstanding in SHAPES:
                for what, wire, pid, load in loads:
                    await answered(load, connections, outstanding, seconds / 5)
                    before = cpu_s(pid)
                    count = await answered(load, connections, outstanding, seconds)
                    cost_us = (cpu_s(pid) - before) / count * 1e6
                    found.setdefault(f"{what}, {connections} x {outstanding}", {}).setdefault(wire, []).append(cost_us)
    return {what: {wire: statistics.median(each) for wire, each in by_wire.items()} for what, by_wire in found.items()}


@click.command()
@click.option("--repeats", default=3, show_default=True, help="Rounds; the median counts.")
@click.option("--seconds", default=3.0, show_default=True, help="Seconds of load in each.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--echo", "serving", hidden=True, help="Serve an echo over this wire.")
def main(repeats: int, seconds: float, as_json: bool, serving: str | None) -> None:
    """CPU microseconds a request over each wire."""
    if serving is not None:
        asyncio.run(echo(serving))
        return
    found = availability.look()
    wires = ["grpcio", "native"] if found.usable else ["grpcio"]
    if not found.usable:
        click.echo(f"only grpcio: {found.told}", err=True)
    costs = asyncio.run(measured(wires, repeats, seconds))
    if as_json:
        click.echo(json.dumps(costs, indent=2))
        return
    table = Table(title="CPU us/request, connections x calls outstanding on each")
    for column in ("asked", *wires):
        table.add_column(column, justify="left" if column == "asked" else "right")
    for what, by_wire in costs.items():
        table.add_row(what, *(f"{by_wire[wire]:.0f}" for wire in wires))
    Console().print(table)


if __name__ == "__main__":
    main()
