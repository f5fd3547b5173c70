"""`fairlane capacity MODEL`: the highest rate at which the p99 objective holds."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from bench.load.generator_process import GeneratorError
from bench.targets.model_repository import copy_model
from bench.targets.target import TargetError
from bench.terminal.console import wide_console
from bench.terminal.exit_code import INVALID
from bench.terminal.json_file import write_json
from bench.terminal.progress import RunProgress
from bench.tuning.capacity_report import capacity_facts, print_capacity, write_plot
from bench.tuning.capacity_search import CapacitySearch
from bench.tuning.knee import knee
from bench.tuning.objective import Objective, objective_options
from scheduler.triton.launcher import TritonStartError

TARGETS: Final = ("fairlane", "triton")


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
            search = CapacitySearch(objective.stream("capacity"), target, Path(scratch), seconds, objective.seed)
            with RunProgress(Console(stderr=True), f"{model} on {target}", 6 * seconds) as progress:
                trials = asyncio.run(search.run(p99_ms, progress))
    except (FileNotFoundError, GeneratorError, TargetError, TritonStartError) as error:
        raise click.ClickException(str(error)) from error
    best = knee(trials, p99_ms)
    facts = capacity_facts(model, target, p99_ms, best, trials)
    write_json(facts, out / f"capacity-{model}.json")
    picture = out / f"capacity-{model}.png"
    write_plot(trials, p99_ms, f"{model} on {target}", picture)
    if objective.as_json:
        click.echo(json.dumps(facts))
    else:
        print_capacity(trials, p99_ms, best)
        wide_console().print(f"plot: {picture}", soft_wrap=True)
    if not all(trial.valid for trial in trials):
        sys.exit(INVALID)
