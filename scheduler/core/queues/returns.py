"""Callers that come back as soon as they are answered, and whether the next batch of theirs is worth waiting for.

A closed loop of 32 callers at a model that takes 20 ms, whatever the rows, falls into groups: while one group's batch
runs the other group waits, and the instance takes it the moment it is free. Both groups are answered in every second
batch, 32 answers in 40 ms. If the instance stays idle for the 5 ms that the first group takes to come back, all 32 ride
in one batch: 32 answers in 25 ms.

That pays only where callers come back at once. So arrivals are counted from answer to answer, in all of that time and
in the first part of it, the window. Independent arrivals (Poisson) are spread evenly: the window has as much of them as
it has of the time. Where it has BUNCHED times as much, arrivals follow answers, and the rows of an answer are expected
again. The counts are sums that decay, so the last dozen answers decide; a wait in vain changes them by itself.
"""

from collections.abc import Collection
from math import inf
from typing import Final

# The part of what one row takes that is waited for callers to come back: what a batch may be longer by without anybody
# minding (batch_size.py), as well.
WINDOW_PART: Final = 0.25
# A shorter window is not waited for: a timer is a part of a millisecond late.
LEAST_WINDOW_S: Final = 0.002
BUNCHED: Final = 2.5
KNOWN_ANSWERS: Final = 8
DECAY: Final = 0.9
# What the rows per second must grow by, as they are expected to.
GAIN: Final = 1.25


class Returns:
    """One class's answers and arrivals at one model. Times in monotonic seconds.

    Attributes:
        tenants: whose rows were answered last.
        merge_key: of these rows; others cannot ride with them.
        until: the end of the window after the last answer; long ago before the first.
    """

    __slots__ = (
        "_all",
        "_answered",
        "_answered_at",
        "_came",
        "_came_soon",
        "_rows",
        "_samples",
        "_soon",
        "_time_s",
        "_window_s",
        "merge_key",
        "tenants",
        "until",
    )

    def __init__(self) -> None:
        self._samples = 0
        self._all = self._soon = self._answered = 0.0
        self._time_s = self._window_s = 0.0
        self._answered_at = -inf
        self._rows = self._came = self._came_soon = 0
        self.merge_key = ""
        self.tenants: Collection[str] = ()
        self.until = -inf

    def arrived(self, rows: int, *, now: float) -> None:
        """Rows have come."""
        self._came += rows
        if now < self.until:
            self._came_soon += rows

    def answered(self, rows: int, merge_key: str, tenants: Collection[str], window_s: float, *, now: float) -> None:
        """So many rows were answered, after which arrivals are counted for `window_s` seconds.

        Nothing is known of callers with several merge keys: who comes back need not have the next batch's key.
        """
        if merge_key != self.merge_key:
            self._samples = 0
        passed_s = now - self._answered_at
        if passed_s > 0 and passed_s < inf:
            self._all = DECAY * self._all + self._came
            self._soon = DECAY * self._soon + self._came_soon
            self._answered = DECAY * self._answered + self._rows
            self._time_s = DECAY * self._time_s + passed_s
            self._window_s = DECAY * self._window_s + min(passed_s, self.until - self._answered_at)
            self._samples += 1
            self._rows = 0
        self._rows += rows
        self._came = self._came_soon = 0
        self._answered_at, self.until = now, now + window_s
        self.merge_key, self.tenants = merge_key, tenants

    @property
    def part(self) -> float:
        """The part of answered rows that is expected again within the window; 0: none, or nobody knows."""
        if self._samples < KNOWN_ANSWERS or self._soon * self._time_s < BUNCHED * self._window_s * self._all:
            return 0.0
        return min(1.0, self._soon / self._answered)

    def expected(self) -> float:
        """Rows of the last answer that are still to come back within the window."""
        return self.part * self._rows - self._came_soon
