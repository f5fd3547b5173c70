"""How much is handed to a backend, and when: late binding.

A model of n instances runs n batches; one more may lie ready, so that an instance never idles for the
length of a round trip. Everything else waits here, where class and tenant still count: what has been
handed over cannot be overtaken. (Kubernetes API Priority and Fairness and llm-d's flow control bound
what is in flight for the same reason.)

The ready batch is bound late as well. Handed over as soon as its place is free it would lie at the
backend for as long as a batch runs, and a more important arrival would wait for two batches instead
of one. It only has to be there when an instance becomes free, so where it could be overtaken it is
held until LEAD_S before the earliest expected end of a running batch. Within a class it could be as well: a tenant
that was served less than the others comes first when it arrives (flows.py), and its wait is bounded by the class's own
wait_s. So what is held is every batch of a class that has a wait_s, or stands below one that has.

With T the longest that such a batch may last, an arrival that comes before its tickets waits for
the rest of a running batch, at most T; or, where the ready batch has just left, for LEAD_S and then T.
So T = wait_s - LEAD_S keeps the wait within wait_s (as far as the estimate is right), where handing
over at once would need T = wait_s / 2; half of wait_s is the floor of T for that reason.

The lead does not grow with the error of the estimate: a running batch that ends before the next has
left costs one round trip of an idle instance, and a batch that leaves earlier than needed costs a more
important arrival up to T.
"""

from typing import Final

# Batches that lie ready at the backend beyond those that run.
READY_BATCHES: Final = 1
# The way to an instance (merge, one message, Triton's queue: about 1 ms), and a timer that is 1 ms late.
LEAD_S: Final = 0.002


def in_flight_limit(instances: int) -> int:
    """Batches of one model that one backend holds, at most."""
    return instances + READY_BATCHES


def longest_batch_s(wait_s: float) -> float:
    """T: how long a batch may last that a class with this `wait_s` may have to wait for, in seconds."""
    return max(wait_s - LEAD_S, wait_s / 2)
