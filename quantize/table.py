"""The table that `fairlane quantize` prints: what INT8 saves and what it costs."""

from rich.table import Table

from export.card import Measure, ModelCard


def comparison(cards: list[ModelCard]) -> Table:
    """Size, latency and accuracy before and after, for cards whose quantization was tried."""
    table = Table(title="INT8 against FP32 (latency: median on one thread)", caption_justify="left")
    table.add_column("model")
    table.add_column("measure")
    for column in ("FP32", "INT8", "INT8 / FP32"):
        table.add_column(column, justify="right")
    for card in cards:
        assert card.quantization is not None
        for label, before, after, ratio in _rows(card.quantization.fp32, card.quantization.int8):
            table.add_row(card.name, label, before, after, ratio)
        served = "INT8" if card.quantization.passed else "FP32: INT8 was refused"
        table.add_row(card.name, "served", "", served, "", end_section=True)
    return table


def _rows(fp32: Measure, int8: Measure) -> list[tuple[str, str, str, str]]:
    size = [("size, MB", fp32.size_bytes / 1e6, int8.size_bytes / 1e6, "{:.2f}", True)]
    latency = [
        (f"latency, batch {rows}, ms", before, int8.latency_ms[rows], "{:.3f}", True)
        for rows, before in fp32.latency_ms.items()
    ]
    scores = [(name, before, int8.scores[name], "{:.4f}", False) for name, before in fp32.scores.items()]
    return [
        (label, form.format(before), form.format(after), f"{after / before:.2f}" if has_ratio else "")
        for label, before, after, form, has_ratio in (*size, *latency, *scores)
    ]
