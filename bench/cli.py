"""`fairlane bench`: load scenarios."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.isolation import CapacityError, run_isolation
from bench.load import GeneratorError
from bench.plan import Plan
from bench.progress import PhaseProgress
from bench.result import Result, write_json
from bench.table import isolation_table, verdict_line
from bench.target import TargetError
from bench.verdict import Verdict, verdicts
from scheduler.triton.launcher import TritonStartError

ROOT = Path(__file__).parent.parent

# The table's width; a narrower terminal wraps lines, which reads better than cut numbers.
MIN_WIDTH = 110


@click.group()
def bench() -> None:
    """Load scenarios: Triton directly, its own priorities, and Fairlane, side by side."""


@bench.command()
@click.option("--seconds", default=40.0, show_default=True, help="Length of a Fairlane phase; others are a part of it.")
@click.option("--warmup", default=3.0, show_default=True, help="Seconds of unmeasured load on each fresh server.")
@click.option("--seed", default=1, show_default=True, help="Seed of arrivals and request values.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True)
@click.option("--model-repository", type=click.Path(path_type=Path, exists=True), default=ROOT / "model_repository")
@click.option("--config", type=click.Path(path_type=Path, exists=True), default=ROOT / "bench" / "isolation.yaml")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option("--check", is_flag=True, help="Exit with code 1 where a verdict is FAIL.")
def isolation(
    *,
    seconds: float,
    warmup: float,
    seed: int,
    out: Path,
    model_repository: Path,
    config: Path,
    as_json: bool,
    check: bool,
) -> None:
    """Interactive latency under a background flood of twice the capacity: Triton, its priorities, Fairlane."""
    plan = Plan(seconds=seconds, warmup_s=warmup, seed=seed, out=out, model_repository=model_repository, config=config)
    out.mkdir(parents=True, exist_ok=True)
    errors = Console(stderr=True)
    try:
        with PhaseProgress(errors) as progress:
            result = asyncio.run(run_isolation(plan, progress))
    except (CapacityError, GeneratorError, TargetError, TritonStartError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    found = verdicts(result)
    facts = _write(result, found, out)
    _print(result, found, facts if as_json else None)
    if check and not all(verdict.passed for verdict in found):
        sys.exit(1)


def _write(result: Result, found: list[Verdict], out: Path) -> dict[str, Any]:
    from bench.plot import write_plot  # noqa: PLC0415 - matplotlib is slow to import and needed only here

    facts = result.facts()
    facts["verdicts"] = [
        {"name": one.name, "claim": one.claim, "found": one.found, "passed": one.passed} for one in found
    ]
    write_json(facts, out / "isolation.json")
    write_plot(result, out / "isolation.png")
    return facts


def _print(result: Result, found: list[Verdict], facts: dict[str, Any] | None) -> None:
    if facts is not None:
        click.echo(json.dumps(facts, indent=2))
        return
    console = Console()
    console = Console(width=max(MIN_WIDTH, console.width))
    console.print(isolation_table(result))
    for verdict in found:
        console.print(verdict_line(verdict), soft_wrap=True)
