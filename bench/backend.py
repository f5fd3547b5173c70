"""`fairlane bench backend`: rows per second of a model in Triton, against a bare ONNX Runtime loop on the same batches.

Both run one instance with the model's own number of threads on the same file, each in a process of its own, in turn and
repeatedly, so that what else the machine does strikes both alike; who goes first changes from round to round. Triton
gets two batches at a time, as Fairlane gives it: one runs, one lies ready. CPU time is of the loop's process, and of
tritonserver with its Python stubs.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import grpc.aio
import numpy as np
import psutil
from google.protobuf import text_format
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from bench.bare import Bare, BareError
from bench.bystanders import Bystanders
from bench.repository import copy_model
from bench.scenario import OTHERS_CORES_BOUND
from scheduler.triton.launcher import EmbeddedTriton, TritonStartError

ROOT: Final = Path(__file__).parent.parent
OUTSTANDING: Final = 2
ANY_SIZE: Final = ("grpc.max_receive_message_length", -1)
ASKED: Final = 0.95  # of the bare loop
DTYPES: Final = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}
Feed = Mapping[str, Any]  # input name -> array whose first axis is the batch


@dataclass(frozen=True, kw_only=True)
class Side:
    """One measurement of one side."""

    rows_per_s: float
    cpu_us_per_row: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both sides at one batch size, medians over the rounds.

    Attributes:
        rows: of a batch.
        bare, triton: rows per second of wall time.
        ratio: median of the rounds' ratios of rows per second.
        ratio_low, ratio_high: the smallest and the largest of them.
        bare_cpu_us, triton_cpu_us: CPU time a row.
        others_cores: cores that processes of others kept busy meanwhile. Beyond OTHERS_CORES_BOUND the
            two sides do not get the same share of the machine, and wall times mean nothing.
    """

    rows: int
    bare: float
    triton: float
    ratio: float
    ratio_low: float
    ratio_high: float
    bare_cpu_us: float
    triton_cpu_us: float
    others_cores: float

    @classmethod
    def of(cls, rows: int, rounds: Sequence[tuple[Side, Side]], others_cores: float) -> "Comparison":
        """Summed up from rounds of bare loop and Triton."""
        bare, triton = zip(*rounds, strict=True)
        ratios = [there.rows_per_s / here.rows_per_s for here, there in rounds]
        return cls(
            rows=rows,
            bare=statistics.median(one.rows_per_s for one in bare),
            triton=statistics.median(one.rows_per_s for one in triton),
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            bare_cpu_us=statistics.median(one.cpu_us_per_row for one in bare),
            triton_cpu_us=statistics.median(one.cpu_us_per_row for one in triton),
            others_cores=others_cores,
        )


class Served:
    """The model in Triton.

    Args:
        stub: of its gRPC service.
        server: tritonserver.
        name: of the model.
    """

    def __init__(self, stub: Any, server: psutil.Process, name: str) -> None:
        self._stub = stub
        self._server = server
        self._name = name

    async def run(self, feed: Feed, seconds: float) -> Side:
        """Rows per second over about this long, with OUTSTANDING requests at a time."""
        request = self._request(feed)
        cpu_s, started, runs = self._cpu_s(), time.perf_counter(), 0

        async def send() -> None:
            nonlocal runs
            while time.perf_counter() - started < seconds:
                await self._stub.ModelInfer(request)
                runs += 1

        await asyncio.gather(*(send() for _ in range(OUTSTANDING)))
        rows, wall_s = runs * rows_of(feed), time.perf_counter() - started
        return Side(rows_per_s=rows / wall_s, cpu_us_per_row=(self._cpu_s() - cpu_s) * 1e6 / rows)

    def _request(self, feed: Feed) -> Any:
        request = service_pb2.ModelInferRequest(model_name=self._name)
        for key, value in feed.items():
            datatype = next(kind for kind, dtype in DTYPES.items() if value.dtype == dtype)
            request.inputs.add(name=key, datatype=datatype, shape=value.shape)
            request.raw_input_contents.append(value.tobytes())
        return request

    def _cpu_s(self) -> float:
        times = [each.cpu_times() for each in (self._server, *self._server.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))


async def bare_side(bare: Bare, path: Path, rows: int, seconds: float) -> Side:
    """The loop's side of a round."""
    measured = await bare.run(path, seconds)
    ran = measured["runs"] * rows
    return Side(rows_per_s=ran / measured["wall_s"], cpu_us_per_row=measured["cpu_s"] * 1e6 / ran)


def rows_of(feed: Feed) -> int:
    """Rows of a batch."""
    return len(next(iter(feed.values())))


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


def prepare(repository: Path, name: str, scratch: Path) -> tuple[Any, Bare]:
    """Copy the model to a repository of its own; its configuration, and the loop on the version that is served."""
    copy_model(repository, name, scratch)
    config = text_format.Parse((scratch / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    threads = int(config.parameters["intra_op_thread_count"].string_value or 1)
    served = max((scratch / name).glob("[0-9]*"), key=lambda path: int(path.name))
    return config, Bare(served / "model.onnx", threads)


async def compare(
    repository: Path, name: str, batches: tuple[int, ...], seconds: float, rounds: int, length: int
) -> list[Comparison]:
    """Measure both sides at each batch size, in turn.

    Raises:
        BareError: the loop cannot run the model.
    """
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as scratch:
        models = Path(scratch, "models")
        config, bare = prepare(repository, name, models)
        triton = EmbeddedTriton(models)
        try:
            address = await triton.start()
            assert triton.pid is not None
            async with bare, grpc.aio.insecure_channel(address.grpc, options=[ANY_SIZE]) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                served = Served(stub, psutil.Process(triton.pid), name)
                feeds = (make_feed(config, rows, length) for rows in batches)
                return [await compare_one(bare, served, feed, Path(scratch), seconds, rounds) for feed in feeds]
        finally:
            await triton.stop(grace_s=0.0)


async def compare_one(bare: Bare, served: Served, feed: Feed, scratch: Path, seconds: float, rounds: int) -> Comparison:
    """Both sides on one batch, after a short run of each that does not count."""
    rows = rows_of(feed)
    path = scratch / f"{rows}.npz"
    await asyncio.to_thread(np.savez, path, **feed)
    await bare_side(bare, path, rows, seconds / 4)
    await served.run(feed, seconds / 4)
    pairs, others = [], Bystanders()
    for number in range(rounds):
        if number % 2:
            there = await served.run(feed, seconds)
            pairs.append((await bare_side(bare, path, rows, seconds), there))
        else:
            here = await bare_side(bare, path, rows, seconds)
            pairs.append((here, await served.run(feed, seconds)))
    return Comparison.of(rows, pairs, others.cores())


@click.command()
@click.option("--model", default="minilm", show_default=True)
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 8, 32), show_default=True, help="Rows.")
@click.option("--length", default=32, show_default=True, help="Size of axes that vary.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of each measurement.")
@click.option("--rounds", default=5, show_default=True, help="Measurements of each side, in turn.")
@click.option("--model-repository", type=click.Path(path_type=Path, exists=True), default=ROOT / "model_repository")
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
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    table = Table(title=f"{model}: rows per second, one instance (asked: a ratio of {ASKED})")
    for column in ("batch", "bare loop", "Triton", "ratio", "from", "to", "CPU us a row, bare", "Triton", "others"):
        table.add_column(column, justify="right")
    for one in found:
        ratios = (f"{value:.2f}" for value in (one.ratio, one.ratio_low, one.ratio_high))
        cpu = (f"{value:.0f}" for value in (one.bare_cpu_us, one.triton_cpu_us))
        table.add_row(str(one.rows), f"{one.bare:.0f}", f"{one.triton:.0f}", *ratios, *cpu, f"{one.others_cores:.2f}")
    console = Console()
    console.print(table)
    if any(one.others_cores > OTHERS_CORES_BOUND for one in found):
        console.print("INVALID: other processes kept cores busy, so wall times mean nothing")
