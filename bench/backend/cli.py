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
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
import grpc.aio
from rich.console import Console
from rich.table import Table

from bench.backend.comparison import Comparison
from bench.backend.measure import Plan, compare
from bench.backend.onnxruntime_loop import BareLoopError
from bench.measuring.validity import OTHERS_CORES_BOUND
from bench.terminal.options import REPOSITORY
from bench.terminal.progress import RunProgress
from scheduler.cpus import divide, keep_to
from scheduler.triton.launcher import TritonStartError

ASKED: Final = 0.95  # of the bare loop
AT_LEAST_1: Final = click.IntRange(min=1)


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
    except (BareLoopError, FileNotFoundError, TritonStartError) as error:
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
