"""`fairlane explain REQUEST_ID`: a request's way as a timeline, the largest part named."""

import json
import urllib.parse
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scheduler.commands.page import fetch, page_options
from scheduler.commands.top import duration

WIDTH: Final = 48
RECENT: Final = 200
SHOWN: Final = 15


@click.command()
@click.argument("request_id", required=False)
@page_options
@click.option("--json", "as_json", is_flag=True, help="Print what the service tells, for machines.")
def explain(request_id: str | None, http: str, api_key: str | None, as_json: bool) -> None:
    """Tell why a request took as long as it did; without an id, list the slowest of the last ones.

    REQUEST_ID is the `id` or `x-request-id` that the client gave, or #NUMBER where it gave none. The service keeps the
    last `telemetry.requests` requests.
    """
    console = Console()
    if request_id is None:
        told = fetch(http, f"/debug/requests?newest={RECENT}", api_key)
        picture: RenderableType = slowest(told["requests"])
    else:
        told = fetch(http, f"/debug/requests/{urllib.parse.quote(request_id, safe='')}", api_key)
        picture = story(told)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        console.print(picture)


def story(told: Any) -> RenderableType:
    """One request's journey, for a person."""
    head = Text.assemble((_shown(told["id"]), "bold"), f"  {told['outcome']} in {duration(told['total_s'])}")
    steps = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    steps.add_column(justify="right", style="dim", no_wrap=True)
    for step in told["timeline"]:
        steps.add_row(f"+{duration(step['after_s'])}", Text(step["what"]))
    lines: list[RenderableType] = [
        head,
        Padding(Text(told["why"], "bold"), (1, 0)),
        _parts(told),
        Padding(steps, (1, 0, 0, 0)),
    ]
    if told["batch"] is not None and told["batch"]["mates"]:
        mates = ", ".join(f"{each['requests']} of {each['class']}/{each['tenant']}" for each in told["batch"]["mates"])
        lines.append(Padding(Text(f"In its batch rode {mates}."), (1, 0, 0, 0)))
    virtual = told["virtual"]
    lines.append(
        Text(
            f"Fair order: its class stood at {virtual['when_queued']:.4f} virtual seconds when it was queued, "
            f"and its tenant's turn was at {virtual['turn']:.4f}.",
            "dim",
        )
    )
    return Group(*lines)


def slowest(requests: Any) -> RenderableType:
    """The slowest of the last requests."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("id", "took", "largest part", "outcome", "class", "tenant", "model"):
        table.add_column(name, no_wrap=True, max_width=36, justify="right" if name == "took" else "left")
    for each in sorted(requests, key=lambda each: each["total_s"], reverse=True)[:SHOWN]:
        largest = f"{each['largest']} {duration(each['parts'][each['largest']])}"
        about = (_shown(each["id"]), duration(each["total_s"]), largest, each["outcome"], each["class"], each["tenant"])
        table.add_row(*(Text(str(part)) for part in (*about, each["model"])))
    return table


def _shown(name: str) -> str:
    """An id as it came from a client, without what would steer the terminal."""
    return name if name.isprintable() else ascii(name)


def _parts(told: Any) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, seconds in told["parts"].items():
        part = seconds / told["total_s"] if told["total_s"] else 0.0
        style = "yellow" if name == told["largest"] else "blue"
        table.add_row(name, duration(seconds), Text("█" * max(round(part * WIDTH), seconds > 0), style), f"{part:.0%}")
    return table
