"""The knee: the highest rate at which a latency objective holds, by bisection with open-loop load."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

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


async def find_knee(
    measure: Callable[[float], Awaitable[Trial]], *, p99_ms: float, high_per_s: float, tolerance: float
) -> list[Trial]:
    """Bisect between 0 and `high_per_s` until the bracket is narrower than `tolerance` of its upper end.

    Args:
        measure: runs one rate.
        p99_ms: the objective.
        high_per_s: a rate that surely does not hold: it is not tried.
        tolerance: relative, above 0.

    Returns:
        The trials in order. The knee is the highest rate that held; where none did, it is below the lowest one tried.
    """
    low, high = 0.0, high_per_s
    trials = []
    while high - low > tolerance * high and high > tolerance * high_per_s:
        trial = await measure((low + high) / 2)
        trials.append(trial)
        if trial.holds(p99_ms):
            low = trial.rate_per_s
        else:
            high = trial.rate_per_s
    return trials


def knee(trials: list[Trial], p99_ms: float) -> Trial | None:
    """The highest rate that held; None where none did."""
    held = [trial for trial in trials if trial.holds(p99_ms)]
    return max(held, key=lambda trial: trial.rate_per_s, default=None)
