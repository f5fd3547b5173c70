"""What theory says should come out: closed forms, worked out without the scheduler."""

from collections.abc import Iterable, Mapping

from scheduler.core.backends.limit import LEAD_PART, LEAST_LEAD_S


def sfq_lag_s(costs_s: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Theorem 1 of SFQ: how far the normalised service of two backlogged accounts may lie apart."""
    return sum(costs_s[name] / weights[name] for name in costs_s)


def largest_batch_rows(a: float, b: float, wait_s: float, max_batch_size: int) -> int:
    """Rows of a lesser batch, such that an arrival waits wait_s at most.

    It arrives just after the ready batch has left, a lead before an instance is free: it waits for that, and
    then for the ready batch. (With more instances it waits less: the next one ends within the same length.)
    """
    length_s = max(wait_s - max(LEAST_LEAD_S, LEAD_PART * wait_s), wait_s / 2)
    return max(1, min(max_batch_size, int((length_s - a) / b)))


def turn_wait_s(weight: float, weights: float, turn_s: float, lesser_turn_s: float) -> float:
    """How long an account that waits is put off at most, while another (`weights`) keeps a backlog.

    Its last turn of `lesser_turn_s` is paid for when the other has had `weights / weight` times as much;
    two turns of the other are in flight by then, and one may just have been chosen.
    """
    return lesser_turn_s * weights / weight + 3 * turn_s


def burst_s(burst_rows: float, capacity_per_s: float, others_per_s: float, on_s: float) -> float:
    """From the first arrival of a burst until all of it is served, as a fluid: at least as long as it lasts."""
    return max(on_s, burst_rows / (capacity_per_s - others_per_s))


def most_on_time(deadlines_s: Iterable[float], batch_s: float, batch_rows: int) -> int:
    """How many of the single-row requests that arrive together anybody could answer by their deadlines.

    Equal lengths, one release: in order of deadlines, each is taken that still ends in time, and no other
    order takes more (J. M. Moore, "An n job, one machine sequencing algorithm", 1968).
    """
    taken = 0
    for deadline_s in sorted(deadlines_s):
        if (taken // batch_rows + 1) * batch_s <= deadline_s:
            taken += 1
    return taken


def jain(shares: Iterable[float]) -> float:
    """Jain's index of fairness: 1 where all have the same, 1 / n where one has all (Jain, Chiu, Hawe 1984)."""
    values = list(shares)
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))
