"""What `fairlane tune` tells: the halving, the final, and a sentence for config.pbtxt."""

import statistics
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.terminal.number import format_number
from bench.tuning.successive_halving import Finalist, Tuned

SETTING: Final = ("instances", "threads", "batch")


def print_tables(console: Console, tuned: Tuned, p99_ms: float, *, written: bool) -> None:
    """Both tables and what came of them."""
    if tuned.rungs:
        console.print(_rungs(tuned, p99_ms))
    console.print(_final(tuned, p99_ms))
    if not tuned.valid:
        console.print("INVALID: a generator fell behind, so nothing is written; run it on a quiet machine")
    elif tuned.best is tuned.finalists[0]:
        console.print("the default stays: nothing beat it beyond the noise", soft_wrap=True)
    else:
        console.print(f"{'written' if written else 'not written'}: {explanation(tuned, p99_ms)}", soft_wrap=True)


def explanation(tuned: Tuned, p99_ms: float) -> str:
    """One line: what the best setting is and what it gains."""
    best, default = tuned.best, tuned.finalists[0]
    return (
        f"{best.setting} (instances x threads) carries {_capacity(best)}/s at p99 <= {p99_ms:g} ms, {default.setting} "
        f"{_capacity(default)}/s; p99 at {tuned.typical_per_s:.0f}/s: {_typical(best)} ms, {_typical(default)} ms."
    )


def _rungs(tuned: Tuned, p99_ms: float) -> Table:
    table = Table(title="halving", header_style="bold")
    for column in ("round", *SETTING, "rate/s", "p99 ms", "answered", f"p99 <= {p99_ms:g} ms", ""):
        table.add_column(column, justify="right")
    for rung in tuned.rungs:
        trial = rung.trial
        table.add_row(
            str(rung.number + 1),
            *_cells(rung.setting),
            format_number(trial.rate_per_s),
            format_number(trial.p99_ms),
            f"{trial.ok_share:.1%}",
            "holds" if trial.holds(p99_ms) else "too much",
            "goes on" if rung.kept else "",
        )
    return table


def _final(tuned: Tuned, p99_ms: float) -> Table:
    table = Table(title="final, median of the rounds (lowest to highest)", header_style="bold")
    for column in (*SETTING, f"capacity/s at p99 <= {p99_ms:g} ms", f"p99 ms at {tuned.typical_per_s:.0f}/s", ""):
        table.add_column(column, justify="right")
    for place, each in enumerate(tuned.finalists):
        remarks = ["default"] * (place == 0) + ["best"] * (each is tuned.best)
        capacity, typical = _spread(each.capacity_per_s), _spread(each.typical_p99_ms)
        table.add_row(*_cells(each.setting), capacity, typical, ", ".join(remarks))
    return table


def _cells(setting: object) -> tuple[str, ...]:
    return tuple(str(value) for value in vars(setting).values())


def _spread(values: list[float]) -> str:
    return f"{format_number(statistics.median(values))} ({format_number(min(values))} to {format_number(max(values))})"


def _capacity(finalist: Finalist) -> str:
    return f"{statistics.median(finalist.capacity_per_s):.0f}"


def _typical(finalist: Finalist) -> str:
    return f"{statistics.median(finalist.typical_p99_ms):.1f}"
