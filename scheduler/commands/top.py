"""`fairlane top`: the live page in a terminal."""

import contextlib
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scheduler.commands.page import page_options, states

BARS: Final = " ▁▂▃▄▅▆▇█"
# The last minutes, one character a few seconds.
PLOT_WIDTH: Final = 24
HISTORY: Final = 300
SHARE_WIDTH: Final = 24


@click.command()
@page_options
@click.option("--match", default="", metavar="TEXT", help="Only tenants whose name contains this.")
@click.option("--tenants", default=15, show_default=True, help="Tenants shown, at most.")
@click.option("--once", is_flag=True, help="Print the present state and end.")
def top(http: str, api_key: str | None, match: str, tenants: int, once: bool) -> None:
    """Watch a running Fairlane; Ctrl-C ends it."""
    console = Console()
    history: deque[Any] = deque(maxlen=HISTORY)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        live = None if once else stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
        for event, data in states(http, match, tenants, api_key):
            if event == "history":
                history.extend(data)
                continue
            # The first state is that of the last second: its point is in the history already.
            fresh = data["point"] is not None and data["point"] not in history
            if fresh:
                history.append(data["point"])
            if live is not None:
                live.update(frame(data, history), refresh=True)
            elif fresh:
                console.print(frame(data, history))
                return


def frame(state: Any, history: Iterable[Any]) -> RenderableType:
    """One picture of the state."""
    points = list(history)
    return Group(
        _head(state),
        Padding(_classes(state["classes"], points), (1, 0, 0, 0)),
        Padding(_tenants(state["tenants"]), (1, 0, 0, 0)),
        Padding(_models(state["models"]), (1, 0, 0, 0)),
        *(Text(f"{each['name']} is not served: {each['why']}", "red") for each in state["unserved"]),
        Padding(_backends(state["backends"]), (1, 0, 0, 0)),
        Padding(_happenings(state["happenings"]), (1, 0, 0, 0)),
    )


def _head(state: Any) -> Text:
    process = state["process"]
    ready = Text("● ready", "green") if state["ready"] else Text("■ not ready", "bold red")
    return Text.assemble(
        ("Fairlane  ", "bold"),
        ready,
        f"   waiting {state['queued']:,}   in flight {state['in_flight']:,}",
        f"   queue {binary(state['queue_bytes'])} of {binary(state['queue_bytes_limit'])}",
        (
            f"   scheduler {process['cpu']:.0%} of a core, {duration(process['cpu_per_request_s'])} a request, "
            f"loop late {duration(process['loop_lag_p99_s'])}",
            "dim",
        ),
    )


def _classes(classes: Any, points: list[Any]) -> Table:
    table = _table(
        "class",
        "waiting",
        "bytes",
        "in flight",
        "median",
        "99 %",
        "99 % wait",
        "answered/s",
        "refused/s",
        "waiting, last minutes",
    )
    table.columns[-1].justify = "left"
    for each in classes:
        table.add_row(
            Text(each["name"], "bold"),
            f"{each['queued']:,} of {each['max_queued']:,}",
            binary(each["queue_bytes"]),
            f"{each['in_flight']:,}",
            duration(each["p50_s"]),
            duration(each["p99_s"]),
            duration(each["wait_p99_s"]),
            f"{each['completed_per_s']:,.1f}",
            _alarming(each["refused_per_s"]),
            sparkline([point["classes"].get(each["name"], {}).get("queued", 0) for point in points]),
        )
    return table


def _tenants(tenants: Any) -> Table:
    table = _table("tenant", "share (│ due)", "", "weight", "requests/s", "refused/s", "in flight / cap", "waiting")
    table.columns[1].justify = "left"
    for each in tenants["rows"]:
        cap = each["max_in_flight"]
        capped = cap is not None and each["in_flight"] >= cap
        table.add_row(
            Text(each["name"]),
            share_bar(each["share"], each["due"]),
            f"{each['share']:.0%}",
            f"{each['weight']:g}",
            f"{each['requests_per_s']:,.1f}",
            _alarming(each["refused_per_s"]),
            Text(f"{each['in_flight']} / {'any' if cap is None else cap}", "yellow" if capped else ""),
            f"{each['queued']:,}",
        )
    hidden = tenants["matching"] - len(tenants["rows"])
    if hidden > 0:
        table.add_row(Text(f"and {hidden:,} more", "dim"))
    return table


def _models(models: Any) -> Table:
    table = _table("model", "waiting", "batches / instances", "rows a batch", "a batch takes", "batches/s")
    for each in models:
        rows = each["rows_per_batch"]
        table.add_row(
            Text(each["name"]),
            f"{each['queued']:,}",
            f"{each['in_flight']} / {each['instances']}",
            "-" if rows is None else f"{rows:.1f}",
            duration(each["batch_s"]),
            f"{each['batches_per_s']:,.1f}",
        )
    return table


def _backends(backends: Any) -> Group:
    return Group(
        *(
            Text.assemble(
                ("● ", "green") if each["ready"] else ("■ ", "yellow" if each["leaving"] else "red"),
                (each["name"], "bold"),
                f"  {_readiness(each)}, {_batches(sum(each['in_flight'].values()))}, "
                f"{duration(each['work_s'])} of work",
                (_breakers(each["breakers"]), "red"),
                (_limit(each), "dim"),
            )
            for each in backends
        )
    )


def _readiness(backend: Any) -> str:
    if backend["leaving"]:
        return "leaving"
    return "ready" if backend["ready"] else "not ready"


def _batches(count: int, kind: str = "") -> str:
    return f"{count} {kind}{'batch' if count == 1 else 'batches'}"


def _limit(backend: Any) -> str:
    """The adaptive limit, where it is between models: what it is, and why it moved last."""
    if backend["models"] < 2:
        return ""
    about = backend["concurrency"]
    ago_s = about["moved_ago_s"]
    moved = "" if ago_s is None else f", moved {ago_s:.0f} s ago"
    return (
        f"\n  {_batches(about['lesser'], 'lesser ')}; beside a more important model at most {int(about['limit'])}"
        f"{moved}: {about['why']}"
    )


def _breakers(breakers: Any) -> str:
    return "".join(
        f", breaker of {model} {breaker['state'].replace('_', ' ')}: {breaker['why']}"
        for model, breaker in breakers.items()
        if breaker["state"] != "closed"
    )


def _happenings(happenings: Any) -> Group:
    colours = {"good": "green", "note": "yellow", "bad": "red"}
    return Group(*(Text(each["text"], colours.get(each["level"], "")) for each in happenings[:5]))


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, no_wrap=True, max_width=28)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _alarming(per_s: float) -> Text:
    return Text(f"{per_s:,.1f}", "red" if per_s >= 0.05 else "")


def sparkline(values: list[int]) -> Text:
    """The values as bars, the newest at the right, each the highest of a few seconds."""
    step = max(1, -(-len(values) // PLOT_WIDTH))
    highest = max([1, *values])
    groups = [values[max(0, end - step) : end] for end in range(len(values), 0, -step)]
    bars = (BARS[-(-(len(BARS) - 1) * max(group) // highest)] for group in reversed(groups))
    return Text("".join(bars), "cyan")


def share_bar(share: float, due: float) -> Text:
    """A share as a bar, with a mark where it would be due."""
    filled = min(SHARE_WIDTH, round(share * SHARE_WIDTH))
    bar = Text("█" * filled + "·" * (SHARE_WIDTH - filled), "blue")
    place = min(SHARE_WIDTH - 1, int(due * SHARE_WIDTH))
    return Text.assemble(bar[:place], ("│", "bold"), bar[place + 1 :])


def duration(seconds: float | None) -> str:
    """Seconds in the unit that a person would use."""
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s"


def binary(count_bytes: float) -> str:
    """Bytes in the unit that a person would use."""
    for unit in ("B", "KiB", "MiB"):
        if count_bytes < 1024:
            return f"{count_bytes:,.{0 if unit == 'B' else 1}f} {unit}"
        count_bytes /= 1024
    return f"{count_bytes:,.1f} GiB"
