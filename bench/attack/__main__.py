"""What attackers do to others: `python -m bench.attack` prints a tenant's p99 alone and during each attack.

One tenant asks at a steady rate, open loop, from this process; the attackers are a process of their own
(attacker.py here). Attackers that share the service's cores slow it by what they take of them, whomever they attack;
in reality they bring their own. So a round has three parts, which see the same machine: nobody attacks; the same
attackers attack somebody else on this machine (decoy.py); they attack the service. The verdict is on the median
over the rounds of the p99 under attack by the p99 while somebody else is attacked: what the service itself adds.
"""

import asyncio
import json
import os
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from bench.attack.measure import ATTACKS, Result, measure
from bench.targets.fairlane import fairlane

BOUND: Final = 2.0


async def _measured(models: Path, kinds: tuple[str, ...], about: dict[str, Any]) -> dict[str, Result]:
    results = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory() as scratch:
            config = Path(scratch) / "fairlane.yaml"
            config.write_text("{}\n")
            async with fairlane(models, config, log=Path(scratch) / "serve.log") as target:
                results[kind] = await measure(target.grpc, kind, pid=target.hop_pid, **about)
    return results


def _table(results: dict[str, Result]) -> Table:
    table = Table(title="p99 of a tenant in ms: alone, while somebody else is attacked, while the service is")
    headings = ("attack", "times", "alone", "elsewhere", "attacked", "/alone", "/elsewhere", f"within {BOUND:g}x")
    for heading in (*headings, "lost", "grew"):
        table.add_column(heading, justify="left" if heading == "attack" else "right")
    for kind, one in results.items():
        grown = "" if one.grown_bytes is None else f"{one.grown_bytes / 2**20:.1f} MiB"
        parts = (one.alone_p99_ms, one.elsewhere_p99_ms, one.attacked_p99_ms)
        p99_ms = [f"{statistics.median(each):.1f}" for each in parts]
        ratios = (f"{one.ratio_to_alone:.2f}", f"{one.ratio:.2f}", "yes" if one.ratio <= BOUND else "NO")
        table.add_row(kind, str(one.done), *p99_ms, *ratios, str(sum(one.lost.values())), grown)
    return table


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(list(ATTACKS)))
@click.option("--per-s", default=200.0, show_default=True, help="Requests a second of the tenant.")
@click.option("--seconds", default=8.0, show_default=True, help="Of each part of a round.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--models", default="model_repository", show_default=True, type=click.Path(exists=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def main(*, kinds: tuple[str, ...], per_s: float, seconds: float, rounds: int, models: Path, as_json: bool) -> None:
    """A tenant's p99 alone and while connections are dropped, headers flood, connections idle, readers stall."""
    about = {"per_s": per_s, "seconds": seconds, "rounds": rounds}
    results = asyncio.run(_measured(models, kinds or tuple(ATTACKS), about))
    if as_json:
        told = {
            kind: asdict(one) | {"ratio": one.ratio, "ratio_to_alone": one.ratio_to_alone, "within": one.ratio <= BOUND}
            for kind, one in results.items()
        }
        click.echo(json.dumps({"bound": BOUND, "cores": os.cpu_count()} | about | {"attacks": told}))
        return
    Console().print(_table(results))


if __name__ == "__main__":
    main()
