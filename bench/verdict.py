"""The isolation scenario's claims, each checked against one run's numbers."""

from dataclasses import dataclass
from typing import Final

from bench.result import Result
from bench.summary import StreamSummary

FLOODED_TO_ALONE_BOUND: Final = 3.0
FAIRLANE_TO_PRIORITIES_BOUND: Final = 1 / 3
THROUGHPUT_BOUND: Final = 0.9

# A queue of 1,000 requests is full after seconds; from then on memory may only breathe. 8 MiB is what allocators
# keep back and forth; 5 % covers a scheduler with a larger queue.
RSS_GROWTH_BOUND_MIB: Final = 8.0
RSS_GROWTH_BOUND_SHARE: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One claim.

    Attributes:
        name: short, stable, used in JSON.
        claim: the sentence that was to hold.
        found: the number or numbers that decide.
        passed: whether it holds.
    """

    name: str
    claim: str
    found: str
    passed: bool


def verdicts(result: Result) -> list[Verdict]:
    """All claims, in the order of the table's footer. An invalid run fails the first one: it proves nothing."""
    checks = (_valid, _own_p99, _priorities_p99, _nobody_refused, _throughput, _flood_refused, _memory)
    return [check(result) for check in checks]


def ratio_at_most(value: float, reference: float, bound: float) -> bool:
    """Whether value / reference <= bound; NaN or a reference of 0 never passes."""
    return reference > 0 and value / reference <= bound


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference > 0 else "no reference"


def _valid(result: Result) -> Verdict:
    faults = result.faults()
    return Verdict(
        name="valid",
        claim="the load of every run was the one asked for, on an unchanged machine",
        found="; ".join(faults) or "no faults",
        passed=not faults,
    )


def _own_p99(result: Result) -> Verdict:
    alone = result.runs["fairlane-alone"].interactive.p99_ms
    flooded = result.runs["fairlane-flood"].interactive.p99_ms
    return Verdict(
        name="p99_flooded_to_alone",
        claim=f"interactive p99 through Fairlane under the flood <= {FLOODED_TO_ALONE_BOUND:g} x its p99 alone",
        found=f"{flooded:.1f} / {alone:.1f} ms = {_ratio(flooded, alone)}",
        passed=ratio_at_most(flooded, alone, FLOODED_TO_ALONE_BOUND),
    )


def _priorities_p99(result: Result) -> Verdict:
    priorities = result.runs["priorities-flood"].interactive.p99_ms
    flooded = result.runs["fairlane-flood"].interactive.p99_ms
    return Verdict(
        name="p99_fairlane_to_priorities",
        claim="interactive p99 under the flood: Fairlane <= 1/3 of Triton with priority_levels",
        found=f"{flooded:.1f} / {priorities:.1f} ms = {_ratio(flooded, priorities)}",
        passed=ratio_at_most(flooded, priorities, FAIRLANE_TO_PRIORITIES_BOUND),
    )


def _nobody_refused(result: Result) -> Verdict:
    summaries = [result.runs[name].interactive for name in ("fairlane-alone", "fairlane-flood")]
    bad = sum(_not_ok(summary) for summary in summaries)
    return Verdict(
        name="interactive_all_answered",
        claim="no interactive request through Fairlane was refused, failed or left unanswered",
        found=f"{bad} of {sum(summary.n for summary in summaries)}",
        passed=bad == 0 and all(summary.n > 0 for summary in summaries),
    )


def _not_ok(summary: StreamSummary) -> int:
    return summary.n - summary.ok


def _throughput(result: Result) -> Verdict:
    total, reference = result.runs["fairlane-flood"].total_ok_per_s, result.reference_per_s
    return Verdict(
        name="throughput",
        claim=f"answers per second through Fairlane under the flood >= {THROUGHPUT_BOUND:g} of Triton alone",
        found=f"{total:.0f} / {reference:.0f} per s = {_ratio(total, reference)}",
        passed=reference > 0 and total / reference >= THROUGHPUT_BOUND,
    )


def _flood_refused(result: Result) -> Verdict:
    background = result.runs["fairlane-flood"].background
    assert background is not None
    clean = background.refused_without_pushback == 0 and background.error == 0
    return Verdict(
        name="background_pushed_back",
        claim="the flood was refused with RESOURCE_EXHAUSTED and a pushback, and failed in no other way",
        found=f"{background.refused} refused, {background.refused_without_pushback} of them without pushback, "
        f"{background.error} failed otherwise",
        passed=background.refused > 0 and clean,
    )


def _memory(result: Result) -> Verdict:
    usage = result.runs["fairlane-flood"].scheduler
    assert usage is not None
    half, end = usage.rss_mib_at(0.5), usage.rss_mib_at(1.0)
    bound = max(RSS_GROWTH_BOUND_MIB, RSS_GROWTH_BOUND_SHARE * half)
    return Verdict(
        name="memory_flat",
        claim=f"the scheduler's memory grew by at most {bound:.0f} MiB over the second half of the flood",
        found=f"{half:.0f} -> {end:.0f} MiB",
        passed=end - half <= bound,
    )
