"""How much waits in one class of one model, so that it is known what goes before a ticket (feasibility.py)."""

from math import frexp
from typing import Final

# Steps for 2**-16 to 2**31 rows a unit of weight; what lies beyond counts as the last one.
STEPS: Final = 48
LEAST_STEP: Final = -16
# Of a tenant that has nothing waiting.
NO_STEP: Final = -1


class Backlog:
    """The rows that wait in one class of one model, by how much waits of a tenant per unit of its weight."""

    __slots__ = ("_rows", "_weights", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._rows = [0] * STEPS
        self._weights = [0.0] * STEPS

    def change(self, before: int, after: int, weight: float) -> None:
        """A tenant of this weight has so many rows waiting in place of as many."""
        self.rows += after - before
        old = _step(before / weight) if before else NO_STEP
        new = _step(after / weight) if after else NO_STEP
        if old == new:
            self._rows[old] += after - before
            return
        if before:
            self._rows[old] -= before
            self._weights[old] = self._weights[old] - weight if self._rows[old] else 0.0
        if after:
            self._rows[new] += after
            self._weights[new] += weight

    def served(self, level: float) -> float:
        """Rows that go until every tenant has had `level` rows per unit of weight, or all it has."""
        own = _step(level)
        rows = sum(self._rows[:own]) + level * sum(self._weights[own + 1 :])
        return rows + min(self._rows[own], level * self._weights[own])


def _step(level: float) -> int:
    step = frexp(level)[1] - LEAST_STEP
    return 0 if step < 0 else step if step < STEPS else STEPS - 1
