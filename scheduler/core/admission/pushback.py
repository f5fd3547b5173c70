"""When to come again: a time per class that grows while drops grow and shrinks when they shrink.

The rule is Kubernetes API Priority and Fairness's (dropped_requests_tracker.go), looked at with the
first refusal of each second: the time doubles where at least DROPS_PER_STEP times as many tickets as
it has seconds were refused within as many seconds (cap MAX_S), yet never twice within its own length,
so that one spike raises it once; it falls by one second where fewer than it has seconds were refused.
Beyond Kubernetes' rule it also falls by each second of silence after the time itself has passed, in
which nobody was expected back; that part is worked out from `now` by whoever asks, so what a snapshot
shows of a class that refuses nobody any more falls by itself. Jitter spreads the returning callers over
[1 - JITTER, 1 + JITTER] of the time; it is drawn from the ticket's number by a multiplicative hash
(Knuth, TAOCP 3, 6.4), so a simulation repeats exactly.
"""

from collections import deque
from math import inf
from typing import Final

FIRST_S: Final = 1
MAX_S: Final = 32
DROPS_PER_STEP: Final = 3
JITTER: Final = 0.25


class Pushback:
    """The pushback of one class."""

    __slots__ = ("_base_s", "_counts", "_raised_at")

    def __init__(self) -> None:
        self._base_s = FIRST_S
        self._raised_at = -inf
        # [second, refusals in it], of the last MAX_S seconds in which there were any, oldest first.
        self._counts: deque[list[int]] = deque(maxlen=MAX_S + 1)

    def base_s(self, *, now: float) -> int:
        """The time before jitter, in whole seconds."""
        silent = int(now) - self._counts[-1][0] - self._base_s if self._counts else 0
        return self._base_s if silent <= 0 else max(FIRST_S, self._base_s - silent)

    def refused(self, ticket_id: int, *, now: float) -> float:
        """Count a refusal and return the seconds after which this ticket's caller may come again."""
        second = int(now)
        if not self._counts or self._counts[-1][0] != second:
            self._adjust(second)
            self._counts.append([second, 0])
        self._counts[-1][1] += 1
        spread = ((ticket_id * 2654435761) & 0xFFFFFFFF) / 2**32
        return self._base_s * (1 - JITTER + 2 * JITTER * spread)

    def _adjust(self, second: int) -> None:
        drops = sum(count for at, count in self._counts if second - at <= self._base_s)
        if drops >= DROPS_PER_STEP * self._base_s and second - self._raised_at >= self._base_s:
            self._base_s = min(MAX_S, self._base_s * 2)
            self._raised_at = second
        elif drops < self._base_s:
            self._base_s = min(max(FIRST_S, self._base_s - 1), self.base_s(now=second))
