"""`fairlane simulate`: a named scenario under a virtual clock."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from simulate.reporting.false_refusals import measure_false_refusals
from simulate.reporting.summary import summarise
from simulate.reporting.table import scenario_list, summary_table
from simulate.scenario import Scenario
from simulate.scenarios import SCENARIOS
from simulate.world.world import World

# The table's width; a narrower terminal wraps lines, which reads better than cut numbers.
MIN_WIDTH: Final = 124
# Tenants of a class that have a row of their own in the table.
MOST_ROWS: Final = 10
STEPS: Final = 100


@click.command()
@click.argument("name", type=click.Choice(list(SCENARIOS)), required=False, metavar="NAME")
@click.option("--list", "as_list", is_flag=True, help="Name the scenarios and say what happens in them.")
@click.option(
    "--seed", default=1, show_default=True, help="Of arrivals and service times; the same seed repeats the run."
)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw waits and shares into this PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print every tenant's numbers as JSON on stdout.")
def simulate(*, name: str | None, as_list: bool, seed: int, plot: Path | None, as_json: bool) -> None:
    """Play scenario NAME against the scheduler's core under a virtual clock."""
    console = Console()
    console = Console(width=max(MIN_WIDTH, console.width))
    if as_list:
        console.print(scenario_list(SCENARIOS.values()))
        return
    if name is None:
        raise click.UsageError(f"which scenario? One of {', '.join(SCENARIOS)} (--list says what happens in them).")
    if plot is not None:
        _require_matplotlib()
    scenario = SCENARIOS[name]
    began_s = time.process_time()
    world = _play(scenario, seed)
    spent_s = time.process_time() - began_s
    if plot is not None:
        from simulate.reporting.plot import write_plot  # noqa: PLC0415 - matplotlib comes with the bench extra alone

        write_plot(world, scenario, plot)
    if as_json:
        click.echo(json.dumps(_facts(world, scenario, seed), indent=2))
        return
    console.print(summary_table(scenario, summarise(world, scenario, most=MOST_ROWS)))
    console.print(
        f"Seed {seed}: {len(world.records):,} tickets in {scenario.seconds:.0f} virtual s, of which the first "
        f"{scenario.warm_s:.0f} s are not in the table; {spent_s:.1f} s of CPU."
    )
    if scenario.sampled_tenant:
        console.print(f"Tenant {scenario.sampled_tenant}: {measure_false_refusals(scenario, world.records, seed)}.")


def _play(scenario: Scenario, seed: int) -> World:
    world = scenario.world(seed)
    columns = (TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(scenario.name, total=1.0)
        for done in scenario.steps(world, STEPS):
            progress.update(task, completed=done)
    return world


def _facts(world: World, scenario: Scenario, seed: int) -> dict[str, object]:
    return {
        "scenario": scenario.name,
        "seed": seed,
        "seconds": scenario.seconds,
        "warm_s": scenario.warm_s,
        "tickets": len(world.records),
        "ended": dict(world.core.snapshot().ended),
        "refusals": asdict(measure_false_refusals(scenario, world.records, seed)) if scenario.sampled_tenant else None,
        "tenants": [summary.facts() for summary in summarise(world, scenario)],
    }


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401, PLC0415 - asked for here so that a long run does not end in an error
    except ImportError as error:
        raise click.ClickException("--plot needs matplotlib: pip install 'fairlane-server[bench]'") from error
