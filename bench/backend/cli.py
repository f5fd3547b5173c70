"""`fairlane bench backend`: rows per second of a model in Triton, against a bare ONNX Runtime loop on the same batches.

Both run one instance with the model's own number of threads on the same file, each in a process of its own, in turn and
repeatedly, so that what else the machine does strikes both alike; the order changes from turn to turn. CPUs are divided
as `fairlane serve` divides them: loop and model have the models', the client, as the scheduler, its own. Every round
starts both anew: some starts are faster than others, of the loop as of Triton, by where the kernel puts a process's
memory, and rounds within one start would all have the same luck. Triton gets two batches at a time, as Fairlane
gives it: one runs, one lies ready. CPU time is of the loop's process, and of tritonserver with its Python stubs.

An identity model in the same Triton (`identity.py` here) gets the same requests: what it takes is Triton's own, and
the embedded backend has to answer for what a batch takes beyond the loop's time and that.
"""

import asyncio
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import grpc.aio
import numpy as np
import psutil
from google.protobuf import text_format
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import model_config_pb2, service_pb2_grpc

from bench.backend.identity import add_identity
from bench.backend.onnxruntime_loop import Bare, BareError
from bench.backend.sides import DTYPES, Comparison, Round, Served, Shape, Sides
from bench.measuring.other_processes import Bystanders
from bench.scenarios.scenario import OTHERS_CORES_BOUND
from bench.targets.model_repository import check_built, copy_model
from bench.terminal.progress import RunProgress
from bench.tuning.objective import REPOSITORY
from scheduler.cpus import Division, divide, keep_to
from scheduler.triton.launcher import EmbeddedTriton, TritonStartError

ANY_SIZE: Final = ("grpc.max_receive_message_length", -1)
ASKED: Final = 0.95  # of the bare loop
AT_LEAST_1: Final = click.IntRange(min=1)
SIDES: Final = 3
START_S: Final = 4.0  # of Triton, roughly


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared.

    Attributes:
        repository: Triton model repository.
        model: name of the model.
        batches: rows.
        sizes: of axes that vary; one is enough for a model that has none.
        seconds: length of each measurement.
        rounds: measurements of each side.
        cpus: whose are whose; None: all share those of this process.
    """

    repository: Path
    model: str
    batches: tuple[int, ...]
    sizes: tuple[int, ...]
    seconds: float
    rounds: int
    cpus: Division | None

    def config(self) -> Any:
        """The model's configuration.

        Raises:
            FileNotFoundError: the model is not built.
        """
        check_built(self.repository, self.model)
        text = (self.repository / self.model / "config.pbtxt").read_text()
        return text_format.Parse(text, model_config_pb2.ModelConfig())

    def lengths(self) -> tuple[int, ...]:
        """The sizes to measure at."""
        varies = any(size < 0 for slot in self.config().input for size in slot.dims)
        return self.sizes if varies else self.sizes[:1]

    def shapes(self) -> list[Shape]:
        """Every length with every batch size."""
        return [Shape(rows, length) for length in self.lengths() for rows in self.batches]

    def round_s(self) -> float:
        """About how long one round at one length takes."""
        return START_S + 1.25 * self.seconds * SIDES * len(self.batches)


class Measured(NamedTuple):
    """A round at one shape, and the cores that others kept busy meanwhile."""

    round: Round
    others_cores: float


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


def prepare(plan: Plan, scratch: Path, length: int) -> tuple[Any, Bare, str]:
    """Copy the model to a repository of its own, with its identity model.

    Returns:
        The model's configuration, the loop on the version that is served, and the identity model's name.
    """
    copy_model(plan.repository, plan.model, scratch)
    config = plan.config()
    threads = int(config.parameters["intra_op_thread_count"].string_value or 1)
    served = max((scratch / plan.model).glob("[0-9]*"), key=lambda path: int(path.name))
    cpus = os.sched_getaffinity(0) if plan.cpus is None else plan.cpus.triton.models
    return config, Bare(served / "model.onnx", threads, cpus), add_identity(scratch, config, length)


async def compare(plan: Plan, progress: RunProgress) -> list[Comparison]:
    """Measure every side at each length and batch size, in turn, each round on processes of its own.

    Raises:
        BareError: the loop cannot run the model.
    """
    measured: dict[Shape, list[Measured]] = {shape: [] for shape in plan.shapes()}
    for number, length in itertools.product(range(plan.rounds), plan.lengths()):
        async with progress.step(f"round {number + 1} of {plan.rounds}, length {length}", plan.round_s()):
            for shape, one in (await measure_round(plan, length)).items():
                measured[shape].append(one)
    return [
        Comparison.of(shape, [one.round for one in ones], statistics.fmean(one.others_cores for one in ones))
        for shape, ones in measured.items()
    ]


async def measure_round(plan: Plan, length: int) -> dict[Shape, Measured]:
    """All sides at every batch size, on a Triton and a loop just started, after a short run that does not count."""
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as scratch:
        models = Path(scratch, "models")
        config, bare, identity = prepare(plan, models, length)
        triton = EmbeddedTriton(models, cpus=None if plan.cpus is None else plan.cpus.triton)
        try:
            address = await triton.start()
            assert triton.pid is not None
            async with bare, grpc.aio.insecure_channel(address.grpc, options=[ANY_SIZE]) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                server = psutil.Process(triton.pid)
                sides = Sides(bare, Served(stub, server, identity), Served(stub, server, plan.model), Path(scratch))
                found = {}
                for rows in plan.batches:
                    feed = make_feed(config, rows, length)
                    await asyncio.to_thread(sides.save, feed)
                    await sides.measure(feed, plan.seconds / 4)
                    others = Bystanders()
                    one = await sides.measure(feed, plan.seconds)
                    found[Shape(rows, length)] = Measured(one, others.cores())
                return found
        finally:
            await triton.stop(grace_s=0.0)


@click.command()
@click.option("--model", default="minilm", show_default=True)
@click.option("--batch", "batches", type=AT_LEAST_1, multiple=True, default=(1, 8, 32), show_default=True, help="Rows.")
@click.option(
    "--length", "sizes", type=AT_LEAST_1, multiple=True, default=(32, 128), show_default=True, help="Of axes that vary."
)
@click.option("--seconds", default=2.0, show_default=True, help="Length of each measurement.")
@click.option("--rounds", type=AT_LEAST_1, default=5, show_default=True, help="Of everything, on fresh processes.")
@click.option("--all-cpus", is_flag=True, help="All share all CPUs, as where `own_cpu` is false.")
@REPOSITORY
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def backend(
    model: str,
    batches: tuple[int, ...],
    sizes: tuple[int, ...],
    seconds: float,
    rounds: int,
    all_cpus: bool,
    model_repository: Path,
    as_json: bool,
) -> None:
    """Rows per second in Triton with the embedded backend, against a bare ONNX Runtime loop."""
    allowed = os.sched_getaffinity(0)
    plan = Plan(
        repository=model_repository,
        model=model,
        batches=batches,
        sizes=sizes,
        seconds=seconds,
        rounds=rounds,
        cpus=None if all_cpus else divide(allowed),
    )
    try:
        total_s = plan.round_s() * rounds * len(plan.lengths())
        keep_to(allowed if plan.cpus is None else plan.cpus.scheduler)
        with RunProgress(Console(stderr=True), model, total_s) as progress:
            found = asyncio.run(compare(plan, progress))
    except (BareError, FileNotFoundError, TritonStartError) as error:
        raise click.ClickException(str(error)) from error
    except grpc.aio.AioRpcError as error:
        raise click.ClickException(f"{model}: Triton refused: {error.details()}") from error
    finally:
        keep_to(allowed)
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
    for column in ("shape", "bare", "identity", "Triton", "to bare", "from", "to", "to bare + identity", "others"):
        table.add_column(column, justify="right")
    for one in found:
        rates = (f"{value:.0f}" for value in (one.bare, one.identity, one.triton))
        ratios = (one.ratio, one.ratio_low, one.ratio_high, one.backend_ratio, one.others_cores)
        table.add_row(f"{one.rows}x{one.length}", *rates, *(f"{value:.2f}" for value in ratios))
    return table


def cpu_table(model: str, found: Sequence[Comparison]) -> Table:
    """CPU time a row, and its ratio."""
    table = Table(title=f"{model}: CPU time, microseconds a row")
    for column in ("shape", "bare", "identity", "Triton", "to bare + identity"):
        table.add_column(column, justify="right")
    for one in found:
        spent = (f"{value:.0f}" for value in (one.bare_cpu_us, one.identity_cpu_us, one.triton_cpu_us))
        table.add_row(f"{one.rows}x{one.length}", *spent, f"{one.backend_cpu_ratio:.2f}")
    return table
