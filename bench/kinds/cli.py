"""`fairlane bench kinds`: the table, and the verdicts."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.kinds.kind import KINDS
from bench.kinds.measure import ASKED_P99, ASKED_RATE, CALLERS, KindResult, Plan, measure
from bench.targets.target import TargetError
from bench.terminal.progress import RunProgress

FAILED: Final = 1
NAMES: Final = [kind.name for kind in KINDS]


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Only this kind; may be given several times.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of each measurement of a rate.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Of everything.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option("--check", is_flag=True, help="Exit with code 1 where a verdict is FAIL.")
def kinds(only: tuple[str, ...], seconds: float, rounds: int, as_json: bool, check: bool) -> None:
    """Every kind of request that Triton serves: directly, and through Fairlane, on one server in turn."""
    chosen = tuple(kind for kind in KINDS if not only or kind.name in only)
    plan = Plan(chosen, seconds, rounds)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="fairlane-kinds-") as scratch,
            RunProgress(Console(stderr=True), "kinds", plan.total_s) as progress,
        ):
            found = asyncio.run(measure(plan, Path(scratch), progress))
    except TargetError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps([one.facts() for one in found], indent=2))
    else:
        _print(found)
    if check and not all(one.passed for one in found):
        sys.exit(FAILED)


def _print(found: Sequence[KindResult]) -> None:
    console = Console(width=130)
    table = Table(title=f"answers a second, {CALLERS} outstanding, and a person's p99 beside a flood of the same kind")
    for column in (
        "kind",
        "Triton",
        "background",
        "to Triton",
        "interactive",
        "to Triton",
        "p99 alone",
        "flooded",
        "ratio",
        "",
    ):
        table.add_column(column, justify="left" if column in {"kind", ""} else "right")
    for one in found:
        facts = one.facts()
        table.add_row(
            one.kind.name,
            *(f"{value:,.0f}" for value in (np.median(one.direct), np.median(one.background))),
            f"{one.ratio(one.background):.2f}",
            f"{np.median(one.interactive):,.0f}",
            f"{one.ratio(one.interactive):.2f}",
            f"{facts['alone_p99_ms']:.1f} ms",
            f"{facts['flooded_p99_ms']:.1f} ms",
            f"{one.p99_ratio:.2f}",
            "PASS" if one.passed else "FAIL",
        )
    console.print(table)
    for one in found:
        for error, count in one.errors.items():
            console.print(f"{one.kind.name}: {count} x {error}", soft_wrap=True)
    console.print(
        f"PASS: at least {ASKED_RATE} of Triton's answers a second in both classes, the person's p99 at most "
        f"{ASKED_P99:g} times what it is alone, and no error",
        soft_wrap=True,
    )
