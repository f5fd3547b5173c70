"""What theory says should come out: closed forms, worked out without the scheduler."""

from collections.abc import Mapping

from scheduler.core.limit import LEAD_S


def max_min_shares(capacity: float, demands: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """Weighted max-min: who asks for less than a fair share gets all of it, the rest share what is left by weight."""
    shares: dict[str, float] = {}
    hungry = dict(demands)
    while hungry:
        level = (capacity - sum(shares.values())) / sum(weights[name] for name in hungry)
        content = {name: demand for name, demand in hungry.items() if demand <= level * weights[name]}
        if not content:
            return shares | {name: level * weights[name] for name in hungry}
        shares |= content
        hungry = {name: demand for name, demand in hungry.items() if name not in content}
    return shares


def sfq_lag_s(costs_s: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Theorem 1 of SFQ: how far the normalised service of two backlogged accounts may lie apart."""
    return sum(costs_s[name] / weights[name] for name in costs_s)


def largest_batch_rows(a: float, b: float, wait_s: float, max_batch_size: int) -> int:
    """Rows of a lesser batch, such that an arrival waits wait_s at most.

    It arrives just after the ready batch has left, LEAD_S before an instance is free: it waits for that, and
    then for the ready batch. (With more instances it waits less: the next one ends within the same length.)
    """
    length_s = max(wait_s - LEAD_S, wait_s / 2)
    return max(1, min(max_batch_size, int((length_s - a) / b)))


def rows_per_s(a: float, b: float, rows: int, instances: int) -> float:
    """Throughput with batches of this size."""
    return instances * rows / (a + b * rows)
