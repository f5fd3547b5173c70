"""The knee: the highest rate at which a latency objective holds, by bisection with open-loop load."""

from collections.abc import Awaitable, Callable

from bench.tuning.trial import Trial


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
