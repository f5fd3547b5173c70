"""`python -m bench.micro`: the core's costs as tables, or as JSON."""

import json
from dataclasses import asdict
from math import log2
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from bench.measuring.machine import Machine
from bench.micro.cost import Point, measure
from bench.micro.memory import bytes_per_ticket
from bench.micro.million import Million, play
from bench.micro.profile import Spent, profile

POINTS: Final = ((10, 10), (1_000, 10), (1_000, 10_000), (100_000, 10), (100_000, 10_000))
# Tickets queued while memory is looked at.
HELD: Final = 100_000
# What is asked of the core.
MOST_US: Final = 40.0
MOST_MILLION_S: Final = 60.0
MOST_BYTES: Final = 1024


@click.command()
@click.option("--tickets", default=20_000, show_default=True, help="Of one repeat.")
@click.option("--repeats", default=5, show_default=True, help="The median of so many is shown.")
@click.option("--million", default=1_000_000, show_default=True, help="Simulated tickets of the long run; 0: none.")
@click.option("--functions", default=15, show_default=True, help="Functions in the profile; 0: no profile.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def main(*, tickets: int, repeats: int, million: int, functions: int, as_json: bool) -> None:
    """CPU a ticket, bytes a queued ticket, and a million simulated tickets."""
    status = Console(stderr=True)
    with status.status("cost a ticket"):
        points = [
            measure(queued, tenants, deadlines=deadlines, tickets=tickets, repeats=repeats)
            for deadlines in (False, True)
            for queued, tenants in POINTS
        ]
    with status.status("memory"):
        sizes = {tenants: bytes_per_ticket(HELD, tenants) for tenants in (10, 10_000)}
    with status.status(f"{million:,} simulated tickets"):
        run = play(million) if million else None
    with status.status("profile"):
        spent = profile(1_000, 100, tickets=tickets, most=functions) if functions else []
    facts: dict[str, Any] = {
        "machine": asdict(Machine.here()),
        "cost": [asdict(point) for point in points],
        "growth": _growth(points),
        "bytes_per_ticket": {str(tenants): size for tenants, size in sizes.items()},
        "million": asdict(run) if run else None,
        "profile": [asdict(one) for one in spent],
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    _print(Console(), points, sizes, run, spent)


def _print(
    console: Console, points: list[Point], sizes: dict[int, float], run: Million | None, spent: list[Spent]
) -> None:
    console.print(_cost_table(points))
    worst = max(points, key=lambda point: point.cost_us)
    _verdict(console, worst.cost_us < MOST_US, f"dearest {worst.cost_us:.1f} us a ticket; asked: under {MOST_US:.0f}")
    for cells, (grown, allowed) in _growth(points).items():
        _verdict(console, grown <= allowed, f"{cells}: {grown:.2f} times; log n allows {allowed:.2f}")
    for held, size in sizes.items():
        text = f"{size:.0f} bytes a queued ticket ({held:,} tenants); asked: under {MOST_BYTES}"
        _verdict(console, size < MOST_BYTES, text)
    if run is not None:
        text = f"{run.tickets:,} simulated tickets in {run.wall_s:.1f} s ({run.cpu_s:.1f} s of CPU)"
        _verdict(console, run.wall_s < MOST_MILLION_S, f"{text}; asked: {MOST_MILLION_S:.0f} s for a million")
    if spent:
        console.print(_profile_table(spent))


def _growth(points: list[Point]) -> dict[str, tuple[float, float]]:
    """By tenants and deadlines: the cost at most queued over that at least, and what growth by log n would allow."""
    growth = {}
    for tenants, deadlines in sorted({(point.tenants, point.deadlines) for point in points}):
        mine = [point for point in points if (point.tenants, point.deadlines) == (tenants, deadlines)]
        first, last = min(mine, key=lambda point: point.queued), max(mine, key=lambda point: point.queued)
        growth[f"{tenants:,} tenants{', deadlines' if deadlines else ''}"] = (
            last.cost_us / first.cost_us,
            log2(last.queued) / log2(first.queued),
        )
    return growth


def _cost_table(points: list[Point]) -> Table:
    table = Table(title="submit + dispatch + complete, CPU microseconds a ticket", title_justify="left")
    for heading in ("queued", "tenants", "deadlines", "median", "least", "most"):
        table.add_column(heading, justify="right")
    for point in points:
        cells = (f"{cost:.1f}" for cost in (point.cost_us, point.least_us, point.most_us))
        table.add_row(f"{point.queued:,}", f"{point.tenants:,}", "yes" if point.deadlines else "no", *cells)
    return table


def _profile_table(spent: list[Spent]) -> Table:
    table = Table(title="Profile, 1,000 queued, 100 tenants", title_justify="left")
    table.add_column("function")
    for heading in ("own part", "calls a ticket"):
        table.add_column(heading, justify="right")
    for one in spent:
        table.add_row(one.function, f"{one.part:.1%}", f"{one.calls:.2f}")
    return table


def _verdict(console: Console, passed: bool, text: str) -> None:
    console.print("[bold green]PASS[/]" if passed else "[bold red]FAIL[/]", text, highlight=False)


if __name__ == "__main__":
    main()
