"""How many executions of a model one backend runs at a time, where its configuration does not tell.

A configuration tells of instances. It does not tell of a model that answers many requests at a time from threads of its
own, of one whose backend batches in flight, or of a network on the way: there the next request has to leave long before
the last answer is here. BBR (Cardwell et al., ACM Queue 2016) finds the least that keeps the rate by trying a little
more and looking whether more is delivered. So does this:

    a round     executions that have ended while somebody waited for a place: ROUND of them in ROUND_S, or as many as
                are in flight in LONG_ROUND_S. Without anybody waiting it tells nothing, and begins anew
    the rate    what is in flight by how long it takes, by Little's law. Answers that are counted in a time would not
                do: they come in waves, and a round begins and ends within one
    one up      GROWTH times as many (FIRST_GROWTH, until that brought nothing once), at least one more. It is kept if
                the rows per second grow by at least GAIN of that, and then the next is tried; else the number is the
                one of before, and the next try is HOLD_S later, twice as long after each in vain, MOST_HOLD_S at most
    one down    what was learned is tried anew: with 1 / GROWTH of it. It is kept if the rate stays above STAYS

What is in flight cannot be overtaken, so it is never more than what was seen to deliver more. A model that runs one
execution at a time meets a round with one more, and stays as it is. While a class that minds waiting is in use and a
lesser one waits, nothing more is tried: the person would wait for the try.
"""

from math import ceil, inf
from typing import Final

from scheduler.core.latency.estimate import LEAST_S

ROUND: Final = 8
ROUND_S: Final = 0.5
LONG_ROUND_S: Final = 2.0
GROWTH: Final = 1.5
FIRST_GROWTH: Final = 2.0
# Of the growth in flight, the part by which the rate has to grow.
GAIN: Final = 0.3
STAYS: Final = 0.95
HOLD_S: Final = 30.0
MOST_HOLD_S: Final = 480.0
# Answers of one execution, or of several that ran together, come within this time.
BURST_S: Final = 0.005
# No model has been seen that profits from more; a bound on what is in flight.
MOST: Final = 1024


class Parallelism:
    """What was learned of one model at one backend. `now` is in monotonic seconds.

    Attributes:
        instances: of the configuration.
        ways: executions that run at a time; at least as many.
    """

    __slots__ = (
        "_before",
        "_began",
        "_burst_at",
        "_calm",
        "_count",
        "_down",
        "_ended_at",
        "_growth",
        "_hold_s",
        "_in_flight",
        "_latency_s",
        "_rate",
        "_rows",
        "_settling",
        "_try_at",
        "_wanted",
        "instances",
        "ways",
    )

    def __init__(self, instances: int) -> None:
        self.ways = self.instances = instances
        self._rate: float | None = None  # rows a second at `_before`, or at `ways` while nothing is tried
        self._before: int | None = None  # ways before what is tried now
        self._down = False
        self._try_at = -inf
        self._hold_s = HOLD_S
        self._growth = FIRST_GROWTH
        self._rows = self._in_flight = 0
        self._latency_s = 0.0
        self._wanted = False
        self._calm = True
        self._burst_at = self._ended_at = -inf
        self._restart(settling=1, now=-inf)

    def ended(self, rows: int, latency_s: float, in_flight: int, *, wanted: bool, calm: bool, now: float) -> None:
        """An execution has ended with its answer.

        Args:
            rows: of it.
            latency_s: seconds since it left.
            in_flight: executions of the model that were out when it left, it included.
            wanted: whether somebody waits for its place.
            calm: whether nobody may come who would have to wait longer for a try.
            now: monotonic seconds.
        """
        if now - self._burst_at > BURST_S:
            self._end_burst(now)
            self._burst_at = now
        self._ended_at = now
        self._wanted = self._wanted or wanted
        self._calm = calm
        if not calm and self._before is not None:
            self.ways, self._before = self._before, None
            self._restart(settling=self.ways + 1, now=now)
        if self._settling:
            self._settling -= 1
            self._began = now
        else:
            self._count += 1
            self._rows += rows
            self._latency_s += latency_s
            self._in_flight = max(self._in_flight, in_flight)

    def _end_burst(self, now: float) -> None:
        """All answers of the moment before are here: what they tell is whole."""
        if not self._wanted:
            self._restart(settling=1, now=now)  # there was less to do than could be in flight
        self._wanted = False
        elapsed_s = self._ended_at - self._began
        if (self._count >= ROUND and elapsed_s >= ROUND_S) or (self._count > self.ways and elapsed_s >= LONG_ROUND_S):
            self._judge(self._in_flight * self._rows / max(self._latency_s, LEAST_S), now)

    def _judge(self, rate: float, now: float) -> None:
        """A round is over."""
        before = self._before
        if before is None or self._rate is None:
            self._rate = rate
            if now >= self._try_at and self._calm:
                self._try(now)
            else:
                self._restart(settling=1, now=now)
            return
        # One lies ready beyond those that run.
        least = STAYS if self.ways < before else 1 + GAIN * ((self.ways + 1) / (before + 1) - 1)
        self._before = None
        if rate >= least * self._rate:
            self._rate = rate
            if self.ways > before:
                self._hold_s = HOLD_S
                self._try(now)
                return
        else:
            self._growth = GROWTH
            self.ways = before
        self._down = not self._down
        self._try_at = now + self._hold_s
        self._hold_s = min(2 * self._hold_s, MOST_HOLD_S)
        self._restart(settling=self.ways + 1, now=now)

    def _try(self, now: float) -> None:
        """Go on with another number."""
        self._before = self.ways
        if self._down and self.ways > self.instances:
            self.ways = max(self.instances, int(self.ways / GROWTH))
        else:
            self.ways = min(MOST, max(self.ways + 1, ceil(self._growth * self.ways)))
        # What left before tells of the number before.
        self._restart(settling=max(self.ways, self._before) + 1, now=now)

    def _restart(self, *, settling: int, now: float) -> None:
        self._settling = settling
        self._began = now
        self._count = 0
        self._rows = 0
        self._in_flight = 0
        self._latency_s = 0.0
