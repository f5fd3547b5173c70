"""`fairlane tune MODEL`: the instances, threads and batch size that carry the most load within a latency objective."""

import asyncio
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from bench.load.generator_process import GeneratorError
from bench.targets.model_repository import copy_model
from bench.terminal.exit_code import INVALID
from bench.terminal.options import Finite
from bench.terminal.progress import RunProgress
from bench.tuning.objective import Objective, objective_options
from bench.tuning.setting import Setting, candidates
from bench.tuning.successive_halving import SettingSearch, Tuned
from bench.tuning.trial_server import CLOSED_LOOP_S, TrialError, TrialServer
from bench.tuning.tune_table import explanation, print_tables
from export.configuration.model_config import CONFIG_FILE, ConfigError, message_text, parse_config, read_config
from export.errors import ExportError
from export.filesystem.folder_lock import waiting_on
from export.repository.repository import Repository
from scheduler.cpus import divide
from scheduler.triton.launcher import TritonStartError

# A line like this stands in config.pbtxt, and the next tuning replaces it.
TUNED: Final = "# Tuned: "
# What a search of a two-core machine takes, in runs of the final's length; only for the progress bar.
EXPECTED_RUNS: Final = 50


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@objective_options
@click.option("--seconds", type=Finite(min=0.1), default=4.0, show_default=True, help="A run of the final.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds of the final.")
@click.option("--cores", type=click.IntRange(min=1), help="To share out.  [default: as many as the models' CPUs]")
@click.option("--all-cpus", is_flag=True, help="Triton uses all CPUs, as where `own_cpu` is false.")
@click.option("--dry-run", is_flag=True, help="Measure and print; leave config.pbtxt as it is.")
def tune(
    objective: Objective, *, seconds: float, rounds: int, cores: int | None, all_cpus: bool, dry_run: bool
) -> None:
    """Choose instances, threads and batch size of MODEL on this machine, and write them to its config.pbtxt.

    Triton and its models get the CPUs that `fairlane serve` leaves to them. Exit code 3: the load was not the one
    asked for, and nothing is written.
    """
    model, p99_ms = objective.model, objective.p99_ms
    allowed = os.sched_getaffinity(0)
    division = None if all_cpus else divide(allowed)
    try:
        with tempfile.TemporaryDirectory(prefix="fairlane-tune-") as scratch:
            models = copy_model(objective.model_repository, model, Path(scratch) / "models")
            config = read_config(objective.model_repository / model / CONFIG_FILE)
            share = len(allowed if division is None else division.triton.models)
            settings = candidates(Setting.of(config), cores or share, objective.rows)
            cpus = None if division is None else division.triton
            server = TrialServer(models, config, objective.stream("tune"), objective.seed, cpus)
            with RunProgress(Console(stderr=True), model, EXPECTED_RUNS * seconds) as progress:
                tuned = asyncio.run(_search(server, settings, progress, p99_ms, seconds, rounds))
        written = tuned.valid and not dry_run and tuned.best is not tuned.finalists[0]
        if written:
            write_setting(objective.model_repository, model, config, tuned.best.setting, explanation(tuned, p99_ms))
    except (ExportError, OSError, GeneratorError, TrialError, TritonStartError) as error:
        raise click.ClickException(str(error)) from error
    if objective.as_json:
        click.echo(json.dumps(_facts(model, p99_ms, tuned, written=written)))
    else:
        print_tables(Console(), tuned, p99_ms, written=written)
    if not tuned.valid:
        sys.exit(INVALID)


async def _search(
    server: TrialServer, settings: list[Setting], progress: RunProgress, p99_ms: float, seconds: float, rounds: int
) -> Tuned:
    async def measure(setting: Setting, rate_per_s: float, length_s: float) -> Any:
        async with progress.step(f"{setting}: {rate_per_s:.0f}/s", length_s):
            return await server.trial(setting, rate_per_s, length_s)

    async with server:
        async with progress.step("what a closed loop gets", CLOSED_LOOP_S):
            closed_loop_per_s = await server.closed_loop_per_s(settings[0])
        search = SettingSearch(
            measure, p99_ms=p99_ms, closed_loop_per_s=closed_loop_per_s, seconds=seconds, rounds=rounds
        )
        return await search.run(settings)


def write_setting(repository: Path, model: str, measured: Any, setting: Setting, why: str) -> None:
    """Put a setting into a model's config.pbtxt, with why above it.

    Comments of the file's head stay, those further down become the generator's own.

    Args:
        repository: the model repository.
        model: the model's name.
        measured: the ModelConfig message that the setting was found for.
        setting: what to write.
        why: in a sentence.

    Raises:
        ConfigError: the file that is there is not a configuration, or no longer the one that was measured.
        FolderBusyError: another process is changing this model, and goes on for longer than one waits for.
    """

    def edited(text: str) -> str:
        if parse_config(text, CONFIG_FILE) != measured:
            raise ConfigError(f"{repository / model / CONFIG_FILE}: changed while it was tuned, and stays; tune again")
        head = [line for line in _head(text) if not line.startswith(TUNED)]
        header = "".join(f"{line}\n" for line in (*head, f"{TUNED}{why}"))
        return message_text(setting.applied(measured), header)

    # Minutes of measuring are not lost to whoever publishes for seconds.
    Repository(repository, waiting_on(Console(stderr=True))).rewrite_config(model, edited)


def _head(text: str) -> list[str]:
    lines = text.splitlines()
    return lines[: next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))]


def _facts(model: str, p99_ms: float, tuned: Tuned, *, written: bool) -> dict[str, Any]:
    facts = {"model": model, "p99_ms": p99_ms, "written": written, **asdict(tuned)}
    # NaN, of a run that answered nothing, is no JSON.
    return json.loads(json.dumps(facts), parse_constant=lambda _: None)  # type: ignore[no-any-return]
