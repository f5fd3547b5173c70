"""Plots as PNG, by matplotlib without a screen."""

import io
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.figure import Figure

from export.card import Quantization
from export.definition.tensor import FloatArray
from quantize.searching.search import Trial, front
from quantize.searching.sensitivity import Sensitivity

DPI: Final = 110
GREY, BLUE, ORANGE, RED = "#9a9a9a", "#2b6cb0", "#dd6b20", "#c53030"
LAYERS_SHOWN: Final = 20
LARGEST_AREA: Final = 400  # of a point, in square points


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def pareto(name: str, trials: Sequence[Trial], score: str) -> Figure:
    """Speed against accuracy of every trial: refused ones in red, size as area, a black edge on the Pareto front."""
    figure = Figure(figsize=(9, 5))
    axes = figure.subplots()
    best, largest = front(trials, score), max(one.size_bytes for one in trials)
    for number, one in enumerate(trials, start=1):
        axes.scatter(
            one.speed_up,
            one.scores[score],
            s=LARGEST_AREA * one.size_bytes / largest,
            color=RED if one.refusals else BLUE if one.publishable else GREY,
            edgecolors="black" if one.name in best else "none",
            alpha=0.7,
        )
        place = (one.speed_up, one.scores[score])
        axes.annotate(str(number), place, xytext=(7, 6), textcoords="offset points", fontsize=8)
        axes.plot([], [], " ", label=f"{number}  {one.name}, {one.size_bytes / 1e6:.1f} MB")
    axes.set_xlabel("times as fast as FP32 (one thread, geometric mean over shapes)")
    axes.set_ylabel(score)
    axes.set_title(f"{name}: blue passes the gate, red is refused; area is size, a black edge the Pareto front")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=0, fontsize=8)
    axes.margins(0.1)
    return figure


def sizes(verdict: Quantization) -> Figure:
    """Size of both files."""
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    sides = (verdict.fp32.size_bytes / 1e6, verdict.int8.size_bytes / 1e6)
    axes.bar_label(axes.bar(("FP32", "INT8"), sides, color=(GREY, BLUE)), fmt="%.2f")
    axes.set_ylabel("MB")
    return figure


def latencies(verdict: Quantization) -> Figure:
    """Latency of both at each shape, and the ratio."""
    figure = Figure(figsize=(6, 3))
    axes = figure.subplots()
    shapes = list(verdict.fp32.latency_ms)
    before = [verdict.fp32.latency_ms[shape] for shape in shapes]
    after = [verdict.int8.latency_ms[shape] for shape in shapes]
    axes.bar([place - 0.2 for place in range(len(shapes))], before, 0.4, color=GREY, label="FP32")
    bars = axes.bar([place + 0.2 for place in range(len(shapes))], after, 0.4, color=BLUE, label="INT8")
    axes.bar_label(bars, [f"{one / other:.2f}x" for one, other in zip(before, after, strict=True)])
    axes.set_xticks(range(len(shapes)), shapes)
    axes.set_yscale("log")
    axes.set_ylabel("ms, one thread")
    axes.legend()
    return figure


def accuracies(verdict: Quantization) -> Figure:
    """Each score that is a mean over samples, with its 95 % interval."""
    figure = Figure(figsize=(6, 3))
    axes = figure.subplots()
    names = list(verdict.fp32.intervals)
    for shift, label, colour, measure in (
        (-0.1, "FP32", GREY, verdict.fp32),
        (0.1, "INT8", BLUE, verdict.int8),
    ):
        middle = [measure.scores[name] for name in names]
        below = [score - measure.intervals[name][0] for score, name in zip(middle, names, strict=True)]
        above = [measure.intervals[name][1] - score for score, name in zip(middle, names, strict=True)]
        # The last bits of a mean of equal numbers may put it outside its own interval.
        bars = [[max(0.0, one) for one in side] for side in (below, above)]
        places = [place + shift for place in range(len(names))]
        axes.errorbar(places, middle, yerr=bars, fmt="o", color=colour, capsize=5, label=label)
    axes.set_xticks(range(len(names)), names)
    axes.margins(x=0.3)
    axes.legend()
    return figure


def layer_losses(found: Sequence[Sensitivity]) -> Figure:
    """What each layer costs when it alone is quantized, the dearest twenty."""
    shown = list(found[:LAYERS_SHOWN])[::-1]
    figure = Figure(figsize=(6, 0.8 + 0.22 * len(shown)))
    axes = figure.subplots()
    axes.barh([f"{one.layer} ({one.operator})" for one in shown], [one.loss for one in shown], color=ORANGE)
    axes.set_xlabel("loss (1 - mean cosine to FP32), this layer alone in INT8")
    axes.tick_params(axis="y", labelsize=7)
    return figure


def cosines(values: Mapping[str, FloatArray]) -> Figure:
    """Histogram of the cosine of each answer to FP32's, for each model."""
    figure = Figure(figsize=(6, 3))
    axes = figure.subplots()
    axes.hist(list(values.values()), bins=40, label=list(values), histtype="step", linewidth=1.5)
    axes.set_xlabel("cosine to FP32")
    axes.set_ylabel("samples")
    axes.legend()
    return figure
