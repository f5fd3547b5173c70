"""Which CPUs the scheduler and the models of its embedded Triton run on: apart, so that neither waits for the other.

A model keeps a CPU busy all the time; the scheduler, gRPC's threads and tritonserver's wake thousands of times a
second. Left to the kernel they meet on one CPU again and again: the model then stands still in the middle of a batch,
and a request waits until the model has used up its slice.
"""

import contextlib
import os
from collections.abc import Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TritonCpus:
    """CPUs of an embedded Triton by number, as the kernel counts them; no set is empty.

    Attributes:
        server: of tritonserver itself, which receives, batches and answers.
        models: of its models' processes.
    """

    server: frozenset[int]
    models: frozenset[int]


@dataclass(frozen=True, slots=True)
class Division:
    """CPUs by number. The scheduler's and the models' have none in common."""

    scheduler: frozenset[int]
    triton: TritonCpus


def divide(allowed: Set[int]) -> Division | None:
    """One CPU for the scheduler, whose event loop cannot use more, and the others for the models.

    tritonserver may use all; where the models have only one, it leaves them that.

    Args:
        allowed: the CPUs that this process may use; `taskset` and container limits are kept.

    Returns:
        None where there are fewer than two: they share.
    """
    if len(allowed) < 2:
        return None
    first, *others = sorted(allowed)
    scheduler, models = frozenset({first}), frozenset(others)
    return Division(scheduler, TritonCpus(scheduler if len(models) == 1 else frozenset(allowed), models))


def keep_to(cpus: Set[int]) -> None:
    """Give every thread of this process these CPUs; threads and processes that are still to come inherit them."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), cpus)
