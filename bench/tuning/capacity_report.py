"""What `fairlane capacity` tells: JSON, a table, and a plot of the p99 against the rate."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from bench.reporting.plot import duration_axis
from bench.terminal.console import wide_console
from bench.terminal.number import format_number
from bench.tuning.knee import knee
from bench.tuning.trial import Trial


def capacity_facts(model: str, target: str, p99_ms: float, best: Trial | None, trials: list[Trial]) -> dict[str, Any]:
    """Plain values for JSON; NaN is None."""
    return {
        "model": model,
        "target": target,
        "p99_ms": p99_ms,
        "valid": all(trial.valid for trial in trials),
        "capacity_per_s": None if best is None else best.rate_per_s,
        "trials": [
            {name: None if value != value else value for name, value in asdict(trial).items()} | {"valid": trial.valid}  # noqa: PLR0124 - NaN
            for trial in trials
        ],
    }


def print_capacity(trials: list[Trial], p99_ms: float, best: Trial | None) -> None:
    """A row for each trial by its rate, and the capacity."""
    table = Table(header_style="bold")
    for column in ("rate/s", "p99 ms", "answered", "lateness p99 ms", "others' cores", ""):
        table.add_column(column, justify="right")
    for trial in sorted(trials, key=lambda each: each.rate_per_s):
        verdict = "holds" if trial.holds(p99_ms) else "too much"
        table.add_row(
            format_number(trial.rate_per_s),
            format_number(trial.p99_ms),
            f"{trial.ok_share:.1%}",
            format_number(trial.late_ms),
            format_number(trial.others_cores),
            verdict if trial.valid else f"{verdict}, INVALID: {trial.fault}",
        )
    console = wide_console()
    console.print(table)
    lowest = min((trial.rate_per_s for trial in trials), default=0.0)
    found = f"{best.rate_per_s:.0f}/s" if best is not None else f"less than {lowest:.0f}/s"
    console.print(f"capacity at p99 <= {p99_ms:g} ms: {found}", soft_wrap=True)


def write_plot(trials: list[Trial], p99_ms: float, title: str, path: Path) -> None:
    """The p99 against the rate, with the objective and the knee, as PNG."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    ordered = sorted(trials, key=lambda trial: trial.rate_per_s)
    axes.plot([each.rate_per_s for each in ordered], [each.p99_ms for each in ordered], "o-", color="#0072B2")
    if invalid := [each for each in ordered if not each.valid]:
        at, p99s_ms = [each.rate_per_s for each in invalid], [each.p99_ms for each in invalid]
        axes.plot(at, p99s_ms, "o", color="#0072B2", markerfacecolor="white", label="invalid: means nothing")
    axes.axhline(p99_ms, color="#D55E00", linestyle="--", linewidth=1, label=f"objective: {p99_ms:g} ms")
    if (best := knee(trials, p99_ms)) is not None:
        axes.axvline(best.rate_per_s, color="#999999", linewidth=1, label=f"knee: {best.rate_per_s:.0f}/s")
    axes.set_yscale("log")
    duration_axis(axes.yaxis)
    axes.set_xlabel("requests per second")
    axes.set_ylabel("99th percentile")
    axes.set_title(title)
    axes.grid(visible=True, color="#eeeeee")
    axes.legend(frameon=False)
    figure.savefig(path)
