"""Which CPUs the scheduler and its embedded Triton run on: apart, so that neither has to wait for the other's.

A model keeps a CPU busy all the time; the scheduler and gRPC's threads wake thousands of times a second. Left to the
kernel they meet on one CPU again and again, each in a session (and so an autogroup) of its own: the model then stands
still in the middle of a batch, and a request waits until the model has used up its slice.
"""

from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Division:
    """CPUs by number, as the kernel counts them; no CPU is in both sets, and none is empty."""

    scheduler: frozenset[int]
    triton: frozenset[int]


def divide(allowed: Set[int]) -> Division | None:
    """One CPU for the scheduler, whose event loop cannot use more, and the others for Triton.

    Args:
        allowed: the CPUs that this process may use; `taskset` and container limits are kept.

    Returns:
        None where there are fewer than two: they share.
    """
    if len(allowed) < 2:
        return None
    first, *others = sorted(allowed)
    return Division(frozenset({first}), frozenset(others))
