"""`fairlane bench backend`: rows per second of a model in Triton, against a bare ONNX Runtime loop on the same batches.

Both run one instance with the model's own number of threads on the same file, each in a process of its own, in turn and
repeatedly, so that what else the machine does strikes both alike; the order turns from round to round. Triton
gets two batches at a time, as Fairlane gives it: one runs, one lies ready. CPU time is of the loop's process, and of
tritonserver with its Python stubs.

An identity model in the same Triton (`bench/identity.py`) gets the same requests: what it takes is Triton's own, and
the embedded backend has to answer for what a batch takes beyond the loop's time and that.
"""

import asyncio
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import grpc.aio
import numpy as np
import psutil
from google.protobuf import text_format
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import model_config_pb2, service_pb2_grpc

from bench.bare import Bare, BareError
from bench.bystanders import Bystanders
from bench.identity import add_identity
from bench.objective import REPOSITORY
from bench.repository import copy_model
from bench.scenario import OTHERS_CORES_BOUND
from bench.side import DTYPES, Comparison, Feed, Served, Sides, rows_of
from scheduler.triton.launcher import EmbeddedTriton, TritonStartError

ANY_SIZE: Final = ("grpc.max_receive_message_length", -1)
ASKED: Final = 0.95  # of the bare loop


def make_feed(config: Any, rows: int, length: int) -> dict[str, Any]:
    """Small numbers for every input of a configuration; an axis that varies has `length`."""
    random = np.random.default_rng(1)
    feed = {}
    for slot in config.input:
        kind = model_config_pb2.DataType.Name(slot.data_type).removeprefix("TYPE_")
        shape = [rows, *(length if size < 0 else size for size in slot.dims)]
        # Ones for a mask, small ids for tokens, and the same for pixels.
        low, high = (1, 2) if "mask" in slot.name else (1, 1000)
        feed[slot.name] = random.integers(low, high, shape).astype(DTYPES[kind])
    return feed


def prepare(repository: Path, name: str, scratch: Path, length: int) -> tuple[Any, Bare, str]:
    """Copy the model to a repository of its own, with its identity model.

    Returns:
        The model's configuration, the loop on the version that is served, and the identity model's name.
    """
    copy_model(repository, name, scratch)
    config = text_format.Parse((scratch / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    threads = int(config.parameters["intra_op_thread_count"].string_value or 1)
    served = max((scratch / name).glob("[0-9]*"), key=lambda path: int(path.name))
    return config, Bare(served / "model.onnx", threads), add_identity(scratch, config, length)


async def compare(
    repository: Path, name: str, batches: tuple[int, ...], seconds: float, rounds: int, length: int
) -> list[Comparison]:
    """Measure every side at each batch size, in turn.

    Raises:
        BareError: the loop cannot run the model.
    """
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as scratch:
        models = Path(scratch, "models")
        config, bare, identity = prepare(repository, name, models, length)
        triton = EmbeddedTriton(models)
        try:
            address = await triton.start()
            assert triton.pid is not None
            async with bare, grpc.aio.insecure_channel(address.grpc, options=[ANY_SIZE]) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                server = psutil.Process(triton.pid)
                sides = Sides(bare, Served(stub, server, identity), Served(stub, server, name), Path(scratch))
                feeds = (make_feed(config, rows, length) for rows in batches)
                return [await compare_one(sides, feed, seconds, rounds) for feed in feeds]
        finally:
            await triton.stop(grace_s=0.0)


async def compare_one(sides: Sides, feed: Feed, seconds: float, rounds: int) -> Comparison:
    """All sides on one batch, after a short run of each that does not count."""
    await asyncio.to_thread(sides.save, feed)
    await sides.measure(feed, seconds / 4, 0)
    others = Bystanders()
    measured = [await sides.measure(feed, seconds, number) for number in range(rounds)]
    return Comparison.of(rows_of(feed), measured, others.cores())


@click.command()
@click.option("--model", default="minilm", show_default=True)
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 8, 32), show_default=True, help="Rows.")
@click.option("--length", default=32, show_default=True, help="Size of axes that vary.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of each measurement.")
@click.option("--rounds", default=5, show_default=True, help="Measurements of each side, in turn.")
@REPOSITORY
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def backend(
    model: str,
    batches: tuple[int, ...],
    length: int,
    seconds: float,
    rounds: int,
    model_repository: Path,
    as_json: bool,
) -> None:
    """Rows per second in Triton with the embedded backend, against a bare ONNX Runtime loop."""
    try:
        found = asyncio.run(compare(model_repository, model, batches, seconds, rounds, length))
    except (BareError, FileNotFoundError, TritonStartError) as error:
        raise click.ClickException(str(error)) from error
    except grpc.aio.AioRpcError as error:
        raise click.ClickException(f"{model}: Triton refused: {error.details()}") from error
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    console = Console()
    console.print(wall_table(model, found))
    console.print(cpu_table(model, found))
    if any(one.others_cores > OTHERS_CORES_BOUND for one in found):
        console.print("INVALID: other processes kept cores busy, so wall times mean nothing")


def wall_table(model: str, found: Sequence[Comparison]) -> Table:
    """Rows per second of wall time, and the ratios."""
    table = Table(title=f"{model}: rows per second, one instance (asked: {ASKED} of the bare loop)")
    for column in ("batch", "bare", "identity", "Triton", "to bare", "from", "to", "to bare + identity", "others"):
        table.add_column(column, justify="right")
    for one in found:
        rates = (f"{value:.0f}" for value in (one.bare, one.identity, one.triton))
        ratios = (one.ratio, one.ratio_low, one.ratio_high, one.backend_ratio, one.others_cores)
        table.add_row(str(one.rows), *rates, *(f"{value:.2f}" for value in ratios))
    return table


def cpu_table(model: str, found: Sequence[Comparison]) -> Table:
    """CPU time a row, and its ratio."""
    table = Table(title=f"{model}: CPU time, microseconds a row")
    for column in ("batch", "bare", "identity", "Triton", "to bare + identity"):
        table.add_column(column, justify="right")
    for one in found:
        spent = (f"{value:.0f}" for value in (one.bare_cpu_us, one.identity_cpu_us, one.triton_cpu_us))
        table.add_row(str(one.rows), *spent, f"{one.backend_cpu_ratio:.2f}")
    return table
