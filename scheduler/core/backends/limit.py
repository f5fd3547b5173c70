"""How much is handed to a backend, and when: late binding.

A model of n instances runs n batches; one more may lie ready, so that an instance never idles for the
length of a round trip. Everything else waits here, where class and tenant still count: what has been
handed over cannot be overtaken. (Kubernetes API Priority and Fairness and llm-d's flow control bound
what is in flight for the same reason.)

The ready batch is bound late as well. Handed over as soon as its place is free it would lie at the
backend for as long as a batch runs, and a more important arrival would wait for two batches instead
of one. It only has to be there when an instance becomes free, so where it could be overtaken it is
held until a lead before the earliest expected end of a running batch. Within a class it could be as well: a tenant
that was served less than the others comes first when it arrives (class_queue.py), and its wait is bounded by the
class's own wait_s. So what is held is every batch of a class that has a wait_s, or stands below one that has.

With T the longest that such a batch may last, an arrival that comes before its tickets waits for
the rest of a running batch, at most T; or, where the ready batch has just left, for the lead and then T.
So T + lead = wait_s keeps the wait within wait_s (as far as the estimate is right), where handing
over at once, which is a lead of T, would need T = wait_s / 2.

The lead divides wait_s. What it has to cover is the way to an instance (merge, one message, the backend's queue), a
running batch that ends before it was expected to, and a wake-up that comes late because the event loop is behind: a
batch that is later than its lead leaves an instance idle. What it covers in vain costs: batches are shorter by it, and
an arrival in a lead waits for one batch more. All of these grow with the length of a batch and with the load rather
than with the clock, so the lead is a part of wait_s and not a time (docs/decisions/0004).
"""

from typing import Final

# Batches that lie ready at the backend beyond those that run.
READY_BATCHES: Final = 1
# The part of wait_s that the ready batch leaves ahead of time.
LEAD_PART: Final = 0.2
# No less than the way to an instance (about 1 ms) and a timer that is 1 ms late.
LEAST_LEAD_S: Final = 0.002


def in_flight_limit(instances: int) -> int:
    """Batches of one model that one backend holds, at most."""
    return instances + READY_BATCHES


def lead_s(wait_s: float) -> float:
    """How long before an instance is expected to be free the ready batch leaves, in seconds; `wait_s` / 2 at most."""
    return min(max(LEAST_LEAD_S, LEAD_PART * wait_s), wait_s / 2)


def longest_batch_s(wait_s: float) -> float:
    """T: how long a batch may last that a class with this `wait_s` may have to wait for, in seconds."""
    return wait_s - lead_s(wait_s)
