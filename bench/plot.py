"""The isolation scenario's picture: interactive latency as a distribution and over time."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.outcome import Outcome
from bench.plan import INTERACTIVE
from bench.result import Result, Run
from bench.summary import NOT_SERVED

# Okabe and Ito's palette: told apart by colour-blind readers. Alone is dashed, flooded is solid.
STYLES: Final = {
    "triton-alone": ("#999999", "--"),
    "fairlane-alone": ("#56B4E9", "--"),
    "triton-flood": ("#D55E00", "-"),
    "priorities-flood": ("#E69F00", "-"),
    "fairlane-flood": ("#0072B2", "-"),
}


def write_plot(result: Result, path: Path) -> None:
    """Draw the picture as PNG, 1650 x 780 pixels.

    Left, the distribution; unanswered requests are in it at their age when the run ended, which is too little.
    Right, each request at its due time; an unanswered one is a triangle that points to where it belongs.

    Args:
        result: of the scenario.
        path: of the file.
    """
    mpl.use("Agg")  # no display needed
    figure = Figure(figsize=(11, 5.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in result.runs.values():
        _draw_distribution(left, run)
        _draw_over_time(right, run)
    _label_distribution(left)
    _label_over_time(right)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.suptitle(
        f"Interactive latency (20/s) while background floods at {result.flood_per_s:.0f}/s, "
        f"twice what Triton can answer on this machine",
        fontsize=11,
    )
    figure.savefig(path)


def _draw_distribution(axes: Axes, run: Run) -> None:
    colour, line = STYLES[run.phase.name]
    samples = run.samples[INTERACTIVE]
    latency_ms = np.sort(samples.latency_ms[~np.isin(samples.outcome, NOT_SERVED)])
    share = np.arange(1, len(latency_ms) + 1) / max(1, len(latency_ms))
    label = f"{', '.join(run.phase.title)}: p99 {readable_ms(run.interactive.p99_ms)}"
    axes.step(latency_ms, share, where="post", color=colour, linestyle=line, linewidth=2, label=label)


def _draw_over_time(axes: Axes, run: Run) -> None:
    colour, line = STYLES[run.phase.name]
    samples = run.samples[INTERACTIVE]
    answered = samples.outcome == Outcome.OK
    censored = ~answered & ~np.isin(samples.outcome, NOT_SERVED)
    size = 10 if line == "-" else 4
    axes.scatter(samples.due_s[answered], samples.latency_ms[answered], s=size, color=colour, linewidths=0)
    axes.scatter(
        samples.due_s[censored], samples.latency_ms[censored], s=14, marker="^", facecolors="none",
        edgecolors=colour, linewidths=0.6,
    )  # fmt: skip


def _label_distribution(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_ms_tick)
    axes.set_ylim(0, 1.01)
    axes.set_xlabel("latency, from the moment the request was due")
    axes.set_ylabel("share of requests at or below")
    axes.axhline(0.99, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.grid(visible=True, which="major", color="#eeeeee")
    axes.set_axisbelow(True)


def _label_over_time(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_ms_tick)
    axes.set_xlim(left=0)
    axes.set_xlabel("due time, s after the flood began (triangle: never answered)")
    axes.set_ylabel("latency of one request")
    axes.grid(visible=True, which="major", color="#eeeeee")
    axes.set_axisbelow(True)


def _ms_tick(value_ms: float, _: float) -> str:
    return f"{value_ms / 1e3:g} s" if value_ms >= 1000 else f"{value_ms:g} ms"


def readable_ms(value_ms: float) -> str:
    """A latency for a reader: `8 ms`, `4.6 s`, or `none` for NaN."""
    if np.isnan(value_ms):
        return "none"
    return f"{value_ms / 1e3:.1f} s" if value_ms >= 1000 else f"{value_ms:.0f} ms"
