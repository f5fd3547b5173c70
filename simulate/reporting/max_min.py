"""Weighted max-min fairness by water-filling: what each would get if service were a fluid.

Source: D. Bertsekas, R. Gallager, "Data Networks", 2nd edition, section 6.5.2. Who asks for less than a fair
share gets all of it; the rest share what is left by weight. Worked out without the scheduler.
"""

from collections.abc import Mapping


def max_min_shares(capacity: float, demands: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """The shares of one resource, in the unit of `capacity` and `demands`.

    Args:
        capacity: what there is.
        demands: what each asks for.
        weights: each one's share relative to the others'.
    """
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
