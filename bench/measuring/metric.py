"""Every number a table, a verdict or a comparison may name, each written once.

A reference is TARGET.PHASE.STREAM.METRIC, or TARGET.PHASE.METRIC for what concerns a whole phase.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from bench.measuring.pool import PhaseTotals, Totals
from bench.recording.outcome import TURNED_AWAY, Outcome


def _percentile(percent: float) -> Callable[[Totals], float]:
    return lambda totals: totals.latency.percentile_ms(percent)


def _count(*names: str) -> Callable[[Totals], float]:
    return lambda totals: sum(totals.counts[name] for name in names)


def _per_s(name: str) -> Callable[[Totals], float]:
    return lambda totals: _divide(totals.counts[name], totals.counted_seconds)


def _divide(value: float, by: float) -> float:
    return value / by if by > 0 else math.nan


def _service_s(totals: Totals) -> float:
    """Service time received: answers times what one of them takes of Triton; answers alone where that is unknown."""
    return totals.counts["done_ok"] / (1.0 if math.isnan(totals.capacity_per_s) else totals.capacity_per_s)


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness, 1 for equal shares, 1/n where one has all; NaN where nobody has any.

    Source: R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984.
    """
    return _divide(sum(shares) ** 2, len(shares) * sum(share**2 for share in shares))


def _handled(totals: PhaseTotals) -> float:
    return sum(stream.counts["arrived"] for stream in totals.streams.values())


STREAM_METRICS: Final[dict[str, Callable[[Totals], float]]] = {
    "p50_ms": _percentile(50),
    "p90_ms": _percentile(90),
    "p99_ms": _percentile(99),
    "max_ms": _percentile(100),
    "requests": _count("arrived"),
    "not_ok": lambda totals: totals.counts["arrived"] - totals.counts[Outcome.OK],
    "refused": _count(*TURNED_AWAY),
    "refused_without_pushback": _count("no_pushback"),
    "expired": _count(Outcome.DEADLINE),
    "failed": _count(Outcome.ERROR),
    "unanswered": _count(Outcome.UNANSWERED),
    "unsent": _count(Outcome.UNSENT),
    "refusal_p99_ms": lambda totals: totals.refusal.percentile_ms(99),
    "offered_per_s": lambda totals: _divide(totals.counts["arrived"], totals.seconds),
    "ok_per_s": _per_s("done_ok"),
    "goodput_per_s": _per_s("done_in_time"),
    "refused_per_s": _per_s("done_turned_away"),
    "sent_share": lambda totals: _divide(totals.counts["sent_in_time"], totals.counts["arrived"]),
    "lateness_p99_ms": lambda totals: totals.lateness.percentile_ms(99),
    "batch_rows": lambda totals: totals.batch_rows,
    "generator_cpu_us_per_request": lambda totals: _divide(totals.generator_cpu_s * 1e6, totals.counts["arrived"]),
}

PHASE_METRICS: Final[dict[str, Callable[[PhaseTotals], float]]] = {
    "ok_per_s": lambda totals: sum(STREAM_METRICS["ok_per_s"](stream) for stream in totals.streams.values()),
    "jain": lambda totals: jain([_service_s(stream) for stream in totals.streams.values()]),
    "hop_cpu_us_per_request": lambda totals: _divide(totals.hop_cpu_s * 1e6, _handled(totals)),
    "hop_growth_mib": lambda totals: totals.hop_growth_mib,
}

# Where less is better; of the others more is. For comparisons.
LESS_IS_BETTER: Final = ("p50_ms", "p90_ms", "p99_ms", "refusal_p99_ms", "hop_cpu_us_per_request")
MORE_IS_BETTER: Final = ("ok_per_s", "goodput_per_s", "jain")


def values_of(totals: PhaseTotals) -> dict[str, float]:
    """Every metric of a phase by its reference without target and phase: METRIC, or STREAM.METRIC."""
    values = {name: metric(totals) for name, metric in PHASE_METRICS.items()}
    for stream, each in totals.streams.items():
        values |= {f"{stream}.{name}": metric(each) for name, metric in STREAM_METRICS.items()}
    return values
