"""`fairlane bench`: load scenarios, and what got better or worse between two of their results."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.backend.cli import backend
from bench.kinds.cli import kinds
from bench.load.generator_process import GeneratorError
from bench.reporting.comparison import CompareError, compare_files, comparison_table
from bench.reporting.report import write_report
from bench.reporting.table import result_tables, validity_lines, verdict_line
from bench.scenarios.result import Result
from bench.scenarios.runner import CalibrationError, Settings, expected_s, run_scenario
from bench.scenarios.scenario import Scenario, ScenarioError, built_in, load_scenario
from bench.targets.kind import TargetKind
from bench.targets.nginx import nginx_path
from bench.targets.target import TargetError
from bench.terminal.console import wide_console
from bench.terminal.exit_code import FAILED, INVALID
from bench.terminal.json_file import write_json
from bench.terminal.options import REPOSITORY
from bench.terminal.progress import RunProgress
from scheduler.triton.launcher import TritonStartError


class ScenarioGroup(click.Group):
    """A group whose first word may be a scenario instead of a command: `fairlane bench isolation`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The named command, or `run` with all words as its arguments."""
        if args and args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "run", self.commands["run"], args


def _list(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        for name in built_in():
            scenario = load_scenario(name)[1]
            click.echo(f"{name:<16} {expected_s(scenario) / 60:4.1f} min  {scenario.title}")
        ctx.exit()


@click.group(cls=ScenarioGroup, context_settings={"help_option_names": ["-h", "--help"]}, subcommand_metavar="NAME ...")
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List the scenarios.")
def bench() -> None:
    """Load scenarios: Triton directly, its own priorities, plain proxies and Fairlane, side by side.

    NAME is a built-in scenario, a YAML file, `compare`, `backend`, or `kinds`.
    """


bench.add_command(backend)


bench.add_command(kinds)


@bench.command()
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...")
@click.option("--rounds", type=click.IntRange(min=1), help="Visits to every target; the scenario's where not given.")
@click.option("--scale", default=1.0, show_default=True, help="Multiplies the length of every phase.")
@click.option("--seed", default=1, show_default=True, help="Seed of arrivals, request values and the bootstrap.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True)
@REPOSITORY
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on stdout, one line each.")
@click.option("--check", is_flag=True, help="Exit with code 1 where a verdict is FAIL.")
def run(
    *,
    names: Sequence[str],
    rounds: int | None,
    scale: float,
    seed: int,
    out: Path,
    model_repository: Path,
    as_json: bool,
    check: bool,
) -> None:
    """Run scenarios, one after the other. Exit code 3: a run was not valid."""
    try:
        scenarios = [load_scenario(name) for name in names]
        results = [
            _run_one(name, _changed(scenario, rounds, scale), Settings(seed=seed, out=out / name,
                     model_repository=model_repository), as_json=as_json)
            for name, scenario in scenarios
        ]  # fmt: skip
    except (CalibrationError, GeneratorError, ScenarioError, TargetError, TritonStartError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    if not all(result.valid for result in results):
        sys.exit(INVALID)
    if check and not all(verdict.passed for result in results for verdict in result.verdicts):
        sys.exit(FAILED)


@bench.command()
@click.argument("before", type=click.Path(path_type=Path, exists=True))
@click.argument("after", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def compare(before: Path, after: Path, *, as_json: bool) -> None:
    """What got better or worse from BEFORE to AFTER beyond the noise; both are JSON of the same scenario."""
    try:
        changes = compare_files(before, after)
    except CompareError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([change.facts() for change in changes], indent=2))
    else:
        wide_console().print(comparison_table(changes))


def _changed(scenario: Scenario, rounds: int | None, scale: float) -> Scenario:
    """The scenario with the flags applied, and without nginx where there is none."""
    if TargetKind.NGINX in scenario.targets and nginx_path() is None:
        Console(stderr=True).print("nginx is not installed: run without it")
        scenario = scenario.without(TargetKind.NGINX)
        if not scenario.phases:
            raise click.ClickException("the scenario has no other target")
    phases = {
        name: phase.model_copy(update={"seconds": phase.seconds * scale}) for name, phase in scenario.phases.items()
    }
    return scenario.model_copy(update={"phases": phases, "rounds": rounds or scenario.rounds})


def _run_one(name: str, scenario: Scenario, settings: Settings, *, as_json: bool) -> Result:
    with RunProgress(Console(stderr=True), name, expected_s(scenario)) as progress:
        result = asyncio.run(run_scenario(name, scenario, settings, progress))
    facts = result.facts()
    write_json(facts, settings.out / f"{name}.json")
    write_report(result, settings.out)
    _print(result, facts if as_json else None, settings.out)
    return result


def _print(result: Result, facts: dict[str, Any] | None, out: Path) -> None:
    if facts is not None:
        click.echo(json.dumps(facts))
        return
    console = wide_console()
    for table in result_tables(result):
        console.print(table)
    for line in (*validity_lines(result), *(verdict_line(verdict) for verdict in result.verdicts)):
        console.print(line, soft_wrap=True)
    console.print(f"report: {out / result.name}.html", soft_wrap=True)
