"""The table that `fairlane quantize` prints: what INT8 saves and what it costs."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from export.card import Measure, ModelCard
from quantize.judging.latency import speed_up
from quantize.searching.search import Trial, front
from quantize.searching.sensitivity import Sensitivity


def comparison(cards: list[ModelCard]) -> Table:
    """Size, latency and accuracy before and after, for cards whose quantization was tried."""
    table = Table(title="INT8 against FP32 (latency: median processor time on one thread; accuracy: 95 % intervals)")
    table.add_column("model")
    table.add_column("measure")
    for column in ("FP32", "INT8", "INT8 / FP32"):
        table.add_column(column, justify="right")
    for card in cards:
        assert card.quantization is not None
        for label, before, after, ratio in _rows(card.quantization.fp32, card.quantization.int8):
            table.add_row(card.name, label, escape(before), escape(after), ratio)
        for one in card.quantization.stays_fp32:
            size = f"{one.size_bytes / 1e6:.2f} MB, " if one.size_bytes else ""
            table.add_row(card.name, escape(f"FP32: {one.what}"), "", f"{size}{one.time_share * 100:.0f} % of time", "")
        for output, error in card.quantization.errors.items():
            table.add_row(card.name, f"error of {escape(output)}, worst channel", "0", f"{error:.3f}", "")
        served = "INT8" if card.quantization.passed else "FP32: INT8 was refused"
        table.add_row(card.name, "served", "", served, "", end_section=True)
    return table


def trials_table(name: str, trials: Sequence[Trial], score: str) -> Table:
    """What every recipe came to; a star marks the Pareto front of accuracy, speed and size."""
    best, shown = front(trials, score), list(trials[0].scores)
    table = Table(title=f"{name}: recipes side by side (* on the Pareto front of {score}, speed and size)")
    for column in ("", "recipe", "MB", "times faster", *shown, "refused for"):
        table.add_column(column, justify="left" if column in ("recipe", "refused for") else "right")
    for one in trials:
        table.add_row(
            "*" if one.name in best else "",
            one.name,
            f"{one.size_bytes / 1e6:.1f}",
            f"{one.speed_up:.2f}",
            *(f"{one.scores[name]:.4f}" for name in shown),
            ", ".join(refusal.partition(":")[0] for refusal in one.refusals),
        )
    return table


def sensitivity_table(name: str, found: Sequence[Sensitivity], kept: Sequence[str]) -> Table:
    """What each layer costs when it alone is quantized, and which are left in FP32."""
    table = Table(title=f"{name}: what each layer costs, alone in INT8")
    for column in ("layer", "operator", "weights", "saves kB", "loss", ""):
        table.add_column(column, justify="left" if column in ("layer", "operator", "") else "right")
    for one in found:
        left = "FP32" if one.layer in kept else ""
        saves = f"{one.saved_bytes / 1e3:,.1f}"
        name = f"{one.layer} (and {', '.join(one.shared)}: the same weights)" if one.shared else one.layer
        table.add_row(name, one.operator, f"{one.weights:,}", saves, f"{one.loss:.2e}", left)
    return table


def _rows(fp32: Measure, int8: Measure) -> list[tuple[str, str, str, str]]:
    size = ("size, MB", f"{fp32.size_bytes / 1e6:.2f}", f"{int8.size_bytes / 1e6:.2f}")
    rows = [(*size, f"{int8.size_bytes / fp32.size_bytes:.2f}")]
    for shape, before in fp32.latency_ms.items():
        after = int8.latency_ms[shape]
        rows.append((f"latency {shape}, ms", f"{before:.3f}", f"{after:.3f}", f"{after / before:.2f}"))
    rows.append(("times faster (mean)", "", f"{speed_up(fp32, int8):.2f}", ""))
    rows.extend((name, _score(fp32, name), _score(int8, name), "") for name in fp32.scores)
    return rows


def _score(measure: Measure, name: str) -> str:
    score, interval = f"{measure.scores[name]:.4f}", measure.intervals.get(name)
    return score if interval is None else f"{score} [{interval[0]:.3f}, {interval[1]:.3f}]"
