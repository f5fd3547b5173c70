"""One stream's samples in a few numbers, and whether the load was what it was meant to be."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.outcome import Outcome
from bench.samples import Samples

# Latency counts from the due time, so a late generator makes the server look worse, never better. Beyond a fifth of
# the mean gap of the interactive stream (50 ms at 20/s) its arrivals are no longer the Poisson process asked for -
# unless that is a twentieth of what was measured at most: 15 ms change nothing about 3 s.
LATENESS_P99_BOUND_MS: Final = 10.0
LATENESS_SHARE_BOUND: Final = 0.05

# A generator that could not send this share of its due requests in time did not offer the rate it was asked for.
SENT_SHARE_BOUND: Final = 0.95

# Requests without an answer from a model: a quick refusal is not a low latency.
NOT_SERVED: Final = (Outcome.REFUSED, Outcome.ERROR)


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """Numbers of one stream in one run. Rates are per second of the run, without its grace.

    Percentiles are exact (an observed sample, rounded up) over everything but refusals and errors; unanswered and
    unsent requests are in them with their age at the end, so a growing queue cannot look good. NaN without samples.
    """

    n: int
    ok: int
    refused: int
    refused_without_pushback: int
    deadline: int
    error: int
    unanswered: int
    unsent: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    offered_per_s: float
    ok_per_s: float
    refused_per_s: float
    lateness_p50_ms: float
    lateness_p99_ms: float
    lateness_max_ms: float
    sent_share: float
    generator_cpu_us_per_request: float
    errors: dict[str, int]
    first_error: str


def summarize(samples: Samples) -> StreamSummary:
    """The summary of one stream."""
    served_ms = samples.latency_ms[~np.isin(samples.outcome, NOT_SERVED)]
    late_ms = samples.lateness_ms
    refused = samples.outcome == Outcome.REFUSED
    return StreamSummary(
        n=len(samples.due_s),
        ok=samples.count(Outcome.OK),
        refused=samples.count(Outcome.REFUSED),
        refused_without_pushback=int(np.count_nonzero(refused & ~samples.pushback)),
        deadline=samples.count(Outcome.DEADLINE),
        error=samples.count(Outcome.ERROR),
        unanswered=samples.count(Outcome.UNANSWERED),
        unsent=samples.count(Outcome.UNSENT),
        p50_ms=percentile(served_ms, 50),
        p90_ms=percentile(served_ms, 90),
        p99_ms=percentile(served_ms, 99),
        max_ms=percentile(served_ms, 100),
        offered_per_s=len(samples.due_s) / samples.duration_s,
        ok_per_s=_per_s(samples, Outcome.OK),
        refused_per_s=_per_s(samples, Outcome.REFUSED),
        lateness_p50_ms=percentile(late_ms, 50),
        lateness_p99_ms=percentile(late_ms, 99),
        lateness_max_ms=percentile(late_ms, 100),
        sent_share=_sent_share(samples),
        generator_cpu_us_per_request=samples.cpu_s / max(1, len(samples.due_s)) * 1e6,
        errors=samples.errors,
        first_error=samples.first_error,
    )


def percentile(values: NDArray[np.float64], percent: float) -> float:
    """The smallest observed value with at least `percent` of the values at or below it; NaN of nothing."""
    if not len(values):
        return float("nan")
    return float(np.percentile(values, percent, method="inverted_cdf"))


def steady_ok_per_s(samples: Samples, from_s: float) -> float:
    """Answers per second from `from_s` to the end of the run: without the start, in which the pipeline fills."""
    steady = (samples.outcome == Outcome.OK) & (samples.done_s > from_s) & (samples.done_s <= samples.duration_s)
    return int(np.count_nonzero(steady)) / (samples.duration_s - from_s)


def load_faults(name: str, summary: StreamSummary, *, lateness_p99_bound_ms: float | None) -> list[str]:
    """Why the load of a stream was not the one asked for; empty where it was.

    Args:
        name: of the stream, for the sentences.
        summary: of the stream.
        lateness_p99_bound_ms: bound on the p99 of (sent - due), or 5 % of the p99 latency where that is more; None
            for a stream whose rate alone matters.
    """
    faults = []
    if lateness_p99_bound_ms is not None:
        bound_ms = np.fmax(lateness_p99_bound_ms, LATENESS_SHARE_BOUND * summary.p99_ms)
        if summary.lateness_p99_ms > bound_ms:
            late = f"p99 lateness {summary.lateness_p99_ms:.1f} ms is above {bound_ms:.0f} ms"
            faults.append(f"{name}: the generator fell behind, {late}")
    if summary.sent_share < SENT_SHARE_BOUND:
        faults.append(f"{name}: only {summary.sent_share:.0%} of the due requests were sent within the run")
    if summary.unsent:
        faults.append(f"{name}: the bound on outstanding requests was hit, {summary.unsent} were never sent")
    return faults


def _per_s(samples: Samples, outcome: Outcome) -> float:
    within = (samples.outcome == outcome) & (samples.done_s <= samples.duration_s)
    return int(np.count_nonzero(within)) / samples.duration_s


def _sent_share(samples: Samples) -> float:
    if not len(samples.due_s):
        return 1.0
    # Unsent entries are NaN, and NaN compares false.
    return int(np.count_nonzero(samples.sent_s <= samples.duration_s)) / len(samples.due_s)
