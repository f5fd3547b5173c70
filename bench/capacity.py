"""`fairlane capacity MODEL`: the highest rate at which the p99 objective holds."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import grpc.aio
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.cli import INVALID, wide_console
from bench.load.generator_process import GeneratorError
from bench.load.input_range import fitting
from bench.load.stream import Stream
from bench.measuring.metric import STREAM_METRICS
from bench.measuring.other_processes import Bystanders
from bench.measuring.pool import Totals
from bench.reporting.plot import duration_axis
from bench.reporting.table import number
from bench.scenarios.result import write_json
from bench.targets.model_repository import copy_model
from bench.targets.target import Target, TargetError, fairlane, triton
from bench.terminal.progress import RunProgress
from bench.tuning.knee import Trial, find_knee, knee
from bench.tuning.objective import Objective, objective_options
from bench.tuning.trial_run import offer, trial_of
from scheduler.triton.launcher import TritonStartError

WARMUP_S: Final = 3.0
# No open loop holds above what a closed loop that is always full gets answered; the rest is for the machine's drift.
HEADROOM: Final = 1.1
TOLERANCE: Final = 0.05
TARGETS: Final = ("fairlane", "triton")


class Search:
    """One search: a server that is up to the trial, and what a trial needs."""

    def __init__(self, stream: Stream, kind: str, scratch: Path, seconds: float, seed: int) -> None:
        self._stream = stream
        self._kind = kind
        self._scratch = scratch
        self._seconds = seconds
        self._seed = seed

    async def run(self, p99_ms: float, progress: RunProgress) -> list[Trial]:
        """Every trial, each on a server of its own: the backlog of a rate that is too high is nobody's latency."""

        async def measure(rate_per_s: float) -> Trial:
            async with progress.step(f"{rate_per_s:.0f}/s", self._seconds), self._server() as target:
                await self._load(target, rate_per_s=None, seconds=WARMUP_S)
                others = Bystanders()
                totals = await self._load(target, rate_per_s=rate_per_s, seconds=self._seconds)
                return trial_of(rate_per_s, totals, others_cores=others.cores())

        async with progress.step("what a closed loop gets", WARMUP_S), self._server() as target:
            try:
                self._stream = await fitting(target.grpc, self._stream, seed=self._seed)
            except grpc.aio.AioRpcError as error:
                raise TargetError(f"{self._stream.model}: {error.details()}") from error
            await self._load(target, rate_per_s=None, seconds=WARMUP_S)
            full = await self._load(target, rate_per_s=None, seconds=WARMUP_S)
        high_per_s = HEADROOM * STREAM_METRICS["ok_per_s"](full)
        return await find_knee(measure, p99_ms=p99_ms, high_per_s=high_per_s, tolerance=TOLERANCE)

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[Target]:
        models, log = self._scratch / "models", self._scratch / "server.log"
        config = self._scratch / "fairlane.yaml"
        await asyncio.to_thread(config.touch)
        running = fairlane(models, config, log=log) if self._kind == "fairlane" else triton(models, log=log)
        async with running as target:
            yield target

    async def _load(self, target: Target, *, rate_per_s: float | None, seconds: float) -> Totals:
        out = self._scratch / "capacity.json"
        return await offer(target.grpc, self._stream, rate_per_s=rate_per_s, seconds=seconds, seed=self._seed, out=out)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@objective_options
@click.option("--target", type=click.Choice(TARGETS), default=TARGETS[0], show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Length of a trial.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True)
def capacity(objective: Objective, *, target: str, seconds: float, out: Path) -> None:
    """Find the highest rate of MODEL at which the p99 objective holds.

    Exit code 3: the generator fell behind, or others kept the machine busy.
    """
    model, p99_ms = objective.model, objective.p99_ms
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="fairlane-capacity-") as scratch:
            copy_model(objective.model_repository, model, Path(scratch) / "models")
            search = Search(objective.stream("capacity"), target, Path(scratch), seconds, objective.seed)
            with RunProgress(Console(stderr=True), f"{model} on {target}", 6 * seconds) as progress:
                trials = asyncio.run(search.run(p99_ms, progress))
    except (FileNotFoundError, GeneratorError, TargetError, TritonStartError) as error:
        raise click.ClickException(str(error)) from error
    best = knee(trials, p99_ms)
    facts = _facts(model, target, p99_ms, best, trials)
    write_json(facts, out / f"capacity-{model}.json")
    picture = out / f"capacity-{model}.png"
    write_plot(trials, p99_ms, f"{model} on {target}", picture)
    if objective.as_json:
        click.echo(json.dumps(facts))
    else:
        _print(trials, p99_ms, best)
        wide_console().print(f"plot: {picture}", soft_wrap=True)
    if not all(trial.valid for trial in trials):
        sys.exit(INVALID)


def _facts(model: str, target: str, p99_ms: float, best: Trial | None, trials: list[Trial]) -> dict[str, Any]:
    return {
        "model": model,
        "target": target,
        "p99_ms": p99_ms,
        "valid": all(trial.valid for trial in trials),
        "capacity_per_s": None if best is None else best.rate_per_s,
        "trials": [
            {name: None if value != value else value for name, value in asdict(trial).items()} | {"valid": trial.valid}  # noqa: PLR0124 - NaN
            for trial in trials
        ],
    }


def _print(trials: list[Trial], p99_ms: float, best: Trial | None) -> None:
    table = Table(header_style="bold")
    for column in ("rate/s", "p99 ms", "answered", "lateness p99 ms", "others' cores", ""):
        table.add_column(column, justify="right")
    for trial in sorted(trials, key=lambda each: each.rate_per_s):
        verdict = "holds" if trial.holds(p99_ms) else "too much"
        table.add_row(
            number(trial.rate_per_s),
            number(trial.p99_ms),
            f"{trial.ok_share:.1%}",
            number(trial.late_ms),
            number(trial.others_cores),
            verdict if trial.valid else f"{verdict}, INVALID: {trial.fault}",
        )
    console = wide_console()
    console.print(table)
    lowest = min((trial.rate_per_s for trial in trials), default=0.0)
    found = f"{best.rate_per_s:.0f}/s" if best is not None else f"less than {lowest:.0f}/s"
    console.print(f"capacity at p99 <= {p99_ms:g} ms: {found}", soft_wrap=True)


def write_plot(trials: list[Trial], p99_ms: float, title: str, path: Path) -> None:
    """The p99 against the rate, with the objective and the knee, as PNG."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    ordered = sorted(trials, key=lambda trial: trial.rate_per_s)
    axes.plot([each.rate_per_s for each in ordered], [each.p99_ms for each in ordered], "o-", color="#0072B2")
    if invalid := [each for each in ordered if not each.valid]:
        at, p99s_ms = [each.rate_per_s for each in invalid], [each.p99_ms for each in invalid]
        axes.plot(at, p99s_ms, "o", color="#0072B2", markerfacecolor="white", label="invalid: means nothing")
    axes.axhline(p99_ms, color="#D55E00", linestyle="--", linewidth=1, label=f"objective: {p99_ms:g} ms")
    if (best := knee(trials, p99_ms)) is not None:
        axes.axvline(best.rate_per_s, color="#999999", linewidth=1, label=f"knee: {best.rate_per_s:.0f}/s")
    axes.set_yscale("log")
    duration_axis(axes.yaxis)
    axes.set_xlabel("requests per second")
    axes.set_ylabel("99th percentile")
    axes.set_title(title)
    axes.grid(visible=True, color="#eeeeee")
    axes.legend(frameon=False)
    figure.savefig(path)
