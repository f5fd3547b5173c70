"""One rate as measured, and whether an objective held."""

import math
from dataclasses import dataclass
from typing import Final

from bench.load.stream import LATENESS_P99_BOUND_MS
from bench.measuring.metric import STREAM_METRICS
from bench.measuring.pool import Totals
from bench.measuring.validity import LATENESS_SHARE_BOUND, OTHERS_CORES_BOUND

# Of a service that refuses instead of queueing, latency alone would say nothing.
OK_SHARE_BOUND: Final = 0.999


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate as measured.

    Attributes:
        rate_per_s: asked for.
        offered_per_s: what the arrivals came to.
        p99_ms: of what was served; unanswered requests are in it with their age.
        ok_share: part of the requests that was answered.
        late_ms: the generator's own p99 lateness.
        others_cores: cores that processes of others kept busy meanwhile; NaN where that was not looked at.
        fault: why the figures mean nothing; empty where they mean what they say.
    """

    rate_per_s: float
    offered_per_s: float
    p99_ms: float
    ok_share: float
    late_ms: float
    others_cores: float
    fault: str

    @property
    def valid(self) -> bool:
        """Whether the load was the one asked for, and the machine was ours."""
        return not self.fault

    def holds(self, p99_ms: float) -> bool:
        """Whether the objective was kept and (nearly) all were answered; NaN keeps nothing."""
        return self.p99_ms <= p99_ms and self.ok_share >= OK_SHARE_BOUND


def trial_of(rate_per_s: float, totals: Totals, *, others_cores: float = math.nan) -> Trial:
    """What was asked for and what came of it, as the knee's search wants it."""
    p99_ms, late_ms = (STREAM_METRICS[name](totals) for name in ("p99_ms", "lateness_p99_ms"))
    fault = ""
    if not (late_ms <= LATENESS_P99_BOUND_MS or late_ms <= LATENESS_SHARE_BOUND * p99_ms):
        fault = "the generator fell behind"
    elif others_cores > OTHERS_CORES_BOUND:
        fault = f"others kept {others_cores:.1f} cores busy"
    return Trial(
        rate_per_s=rate_per_s,
        offered_per_s=STREAM_METRICS["offered_per_s"](totals),
        p99_ms=p99_ms,
        ok_share=totals.counts["ok"] / max(1.0, totals.counts["arrived"]),
        late_ms=late_ms,
        others_cores=others_cores,
        fault=fault,
    )
