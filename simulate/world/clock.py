"""The virtual clock: what happens when, in order; at one instant in the order in which it was arranged."""

import heapq
from collections.abc import Callable
from math import inf
from typing import Any


class Clock:
    """A heap of what is due.

    Attributes:
        now: virtual seconds since the start of the world.
    """

    __slots__ = ("_due", "_serial", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Arrange for `action(*arguments)` at this time (seconds, not before `now`)."""
        self._serial += 1
        heapq.heappush(self._due, (when, self._serial, action, arguments))

    def next_at(self) -> float:
        """When the next thing is due; infinity where nothing is."""
        return self._due[0][0] if self._due else inf

    def run_due(self) -> None:
        """Do everything that is due at `now`, also what becomes due at `now` by it."""
        due = self._due
        while due and due[0][0] <= self.now:
            _, _, action, arguments = heapq.heappop(due)
            action(*arguments)
