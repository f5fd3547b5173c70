"""How many batches a backend is handed per model: late binding.

A model of n instances runs n batches; one more lies ready so that an instance never idles for the
length of a round trip. Everything else waits here, where class and tenant still count: what has
been handed over cannot be overtaken. (Kubernetes API Priority and Fairness and llm-d's flow control
bound what is in flight for the same reason.)
"""

from typing import Final

# Batches that lie ready at the backend beyond those that run.
READY_BATCHES: Final = 1


def in_flight_limit(instances: int) -> int:
    """Batches of one model that one backend holds, at most."""
    return instances + READY_BATCHES


def batches_ahead(instances: int) -> int:
    """Batch lengths that an arrival waits, at most, when every place in flight has just been taken.

    It needs a place in flight and then an instance: two endings. With one instance those come one
    after the other; with two or more the running batches all end within one batch length.
    """
    return 2 if instances == 1 else 1
