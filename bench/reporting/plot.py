"""A result's pictures: latency as a distribution and over time, goodput against offered load, shares of tenants."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from bench.measuring.pool import StreamPool
from bench.scenarios.result import Result
from bench.targets.kind import TargetKind

# Okabe and Ito's palette: told apart by colour-blind readers.
COLOURS: Final = {
    TargetKind.TRITON: "#D55E00",
    TargetKind.PRIORITIES: "#E69F00",
    TargetKind.PROXY: "#009E73",
    TargetKind.NGINX: "#CC79A7",
    TargetKind.FAIRLANE: "#0072B2",
}
LINES: Final = ("--", "-", ":", "-.")
SHARES: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")

# A smaller part of a bar has no room for its number.
LEAST_TOLD_SHARE: Final = 0.05

Cell = tuple[TargetKind, str, StreamPool]


def write_png(result: Result, path: Path) -> None:
    """The first stream's latency, as a distribution and over time, as PNG of 1650 x 780 pixels."""
    stream = next(iter(result.scenario.streams))
    figure = latency_figure(result, [stream])
    figure.suptitle(f"{result.scenario.title}: latency of {stream}", fontsize=11)
    figure.savefig(path, dpi=150)


def figures(result: Result) -> dict[str, Figure]:
    """Every picture of the report, by its caption."""
    pictures: dict[str, Figure] = {}
    for traffic_class, streams in streams_by_class(result).items():
        pictures[f"Latency of class {traffic_class}"] = latency_figure(result, streams)
        if len(streams) > 1:
            pictures |= {f"Latency of {name}, {traffic_class}": latency_figure(result, [name]) for name in streams}
    pictures["Answers in time against offered load, second by second"] = _goodput_figure(result)
    pictures["Answers per second by tenant, and its share"] = _share_figure(result)
    pictures["Rows that Triton ran at a time"] = _batch_figure(result)
    return pictures


def streams_by_class(result: Result) -> dict[str, list[str]]:
    """Names of the streams of each class, in the scenario's order."""
    found: dict[str, list[str]] = {}
    for name, stream in result.scenario.streams.items():
        found.setdefault(stream.traffic_class, []).append(name)
    return found


def latency_figure(result: Result, streams: Sequence[str]) -> Figure:
    """Of all requests of some streams: left the distribution; right median (thin) and 99th percentile by the second."""
    figure = _figure(2)
    left, right = figure.axes
    for number, (target, phase, pool) in enumerate(_cells(result, streams)):
        style: dict[str, Any] = {
            "color": COLOURS[target],
            "linestyle": _line(result, phase),
        }
        totals = pool.totals(pool.everything)
        label = f"{target}, {phase}: p99 {readable_ms(totals.latency.percentile_ms(99))}"
        share = np.cumsum(totals.latency.counts) / max(1.0, totals.latency.counts.sum())
        left.step(totals.latency.values_ms, share, where="post", linewidth=2, label=label, zorder=3 + number, **style)
        at_s, p50_ms, p99_ms = over_time(pool)
        right.plot(at_s, p50_ms, linewidth=0.8, **style)
        right.plot(at_s, p99_ms, linewidth=2, **style)
    _label(left, "latency, from the moment the request was due", "share of requests at or below")
    left.set_xscale("log")
    duration_axis(left.xaxis)
    left.axhline(0.99, color="#bbbbbb", linewidth=0.8, zorder=0)
    _label(right, "due time, s into the phase (unanswered: age at the end)", "median (thin) and 99th percentile")
    right.set_yscale("log")
    duration_axis(right.yaxis)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def over_time(pool: StreamPool) -> tuple[list[float], list[float], list[float]]:
    """Middle of each second, median and 99th percentile in it (ms, NaN where nothing was due), rounds pooled."""
    bins = pool.rounds[0].bins
    bin_s = pool.rounds[0].duration_s / bins
    bin_of_row = np.concatenate([np.arange(one.bins) for one in pool.rounds])
    rows = [pool.latency_by_row.weighted((bin_of_row == place).astype(np.float64)) for place in range(bins)]
    at_s = [(place + 0.5) * bin_s for place in range(bins)]
    return at_s, [row.percentile_ms(50) for row in rows], [row.percentile_ms(99) for row in rows]


def _goodput_figure(result: Result) -> Figure:
    figure = _figure(1)
    (axes,) = figure.axes
    most = 1.0
    for cell, pool in result.pools.items():
        target = TargetKind(cell.partition(".")[0])
        offered = np.sum([stream.count_by_bin("arrived") for stream in pool.streams.values()], axis=0)
        good = np.sum([stream.count_by_bin("done_in_time") for stream in pool.streams.values()], axis=0)
        place = list(result.scenario.phases).index(cell.partition(".")[2])
        axes.scatter(offered, good, s=18, color=COLOURS[target], marker="os^vD*"[place % 6], label=cell, alpha=0.7)
        most = max(most, float(np.max(offered)))
    axes.plot([0, most], [0, most], color="#bbbbbb", linewidth=0.8, zorder=0)
    _label(axes, "offered, requests per second", "answered in time, requests per second")
    axes.legend(fontsize=9, frameon=False)
    return figure


def _share_figure(result: Result) -> Figure:
    """Answers per second of each tenant, and as parts of all where there is room to write it."""
    figure = _figure(1)
    (axes,) = figure.axes
    cells = list(result.pools)
    tenants = list(dict.fromkeys(stream.tenant for stream in result.scenario.streams.values()))
    rates = np.array([[_tenant_per_s(result, cell, tenant) for cell in cells] for tenant in tenants])
    shares = rates / np.maximum(rates.sum(axis=0), 1e-9)
    for place, tenant in enumerate(tenants):
        left, colour = rates[:place].sum(axis=0), SHARES[place % len(SHARES)]
        bars = axes.barh(cells, rates[place], left=left, label=tenant, color=colour, height=0.6)
        told = [f"{share:.0%}" if share >= LEAST_TOLD_SHARE else "" for share in shares[place]]
        axes.bar_label(bars, told, label_type="center", fontsize=8)
    axes.invert_yaxis()
    _label(axes, "answers per second, and each tenant's share", "")
    axes.legend(fontsize=9, frameon=False)
    return figure


def _batch_figure(result: Result) -> Figure:
    """For each model the distribution of its batches' sizes; no line where a server keeps no account of them."""
    models = sorted(result.scenario.models)
    figure = _figure(len(models))
    for axes, model in zip(figure.axes, models, strict=True):
        for cell, pool in result.pools.items():
            target, _, phase = cell.partition(".")
            streams = (each for name, each in pool.streams.items() if result.scenario.streams[name].model == model)
            sizes = next((each.batch_sizes for each in streams), None)
            if not sizes:
                continue
            rows = sorted(sizes)
            share = np.cumsum([sizes[size] for size in rows]) / sizes.total()
            style: dict[str, Any] = {"color": COLOURS[TargetKind(target)], "linestyle": _line(result, phase)}
            mean = sum(size * count for size, count in sizes.items()) / sizes.total()
            label = f"{target}, {phase}: mean {mean:.1f}"
            axes.step([0, *rows], [0, *share], where="post", linewidth=2, label=label, **style)
        _label(axes, f"rows of a batch of {model}", "share of batches at or below")
        if axes.lines:
            axes.legend(fontsize=9, frameon=False, loc="lower right")
    return figure


def _tenant_per_s(result: Result, cell: str, tenant: str) -> float:
    streams = [name for name in result.pools[cell].streams if result.scenario.streams[name].tenant == tenant]
    return sum(result.value(f"{cell}.{name}.ok_per_s") for name in streams)


def _cells(result: Result, streams: Sequence[str]) -> Iterator[Cell]:
    """The targets and phases in which any of the streams ran, with the rounds of those that did."""
    for cell, pool in result.pools.items():
        rounds = [one for name in streams if name in pool.streams for one in pool.streams[name].rounds]
        if rounds:
            target, _, phase = cell.partition(".")
            yield TargetKind(target), phase, StreamPool(rounds, math.nan)


def _line(result: Result, phase: str) -> str:
    """A phase's line; where there is one phase alone, nothing is to be told apart."""
    phases = list(result.scenario.phases)
    return "-" if len(phases) == 1 else LINES[phases.index(phase) % len(LINES)]


def _figure(columns: int) -> Figure:
    mpl.use("Agg")  # no display needed
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    figure.subplots(1, columns)
    return figure


def _label(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, which="major", color="#eeeeee")
    axes.set_axisbelow(True)


class _Milliseconds(LogFormatter):
    """Marks of a logarithmic axis, in the unit that a person would use; marks between decades where there is room."""

    def __call__(self, value_ms: float, place: Any = None) -> str:
        if not super().__call__(value_ms, place):
            return ""
        return f"{value_ms / 1e3:g} s" if value_ms >= 1000 else f"{value_ms:g} ms"


def duration_axis(axis: Axis) -> None:
    """Word the marks of a logarithmic axis of milliseconds."""
    axis.set_major_formatter(_Milliseconds())
    axis.set_minor_formatter(_Milliseconds())


def readable_ms(value_ms: float) -> str:
    """A latency for a reader: `8 ms`, `4.6 s`, or `none` for NaN."""
    if math.isnan(value_ms):
        return "none"
    if value_ms >= 1000:
        return f"{value_ms / 1e3:.1f} s"
    return f"{value_ms:.0f} ms" if value_ms >= 10 else f"{value_ms:.1f} ms"
