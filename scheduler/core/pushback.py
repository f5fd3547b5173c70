"""When to come again: a time per class that grows while drops grow and shrinks when they shrink.

The rule is Kubernetes API Priority and Fairness's droppedRequestsTracker: refusals are counted per
window of one second; at a window's end the time doubles when more than DROPS_PER_STEP times the
present time were refused (cap MAX_S), and falls by one second when fewer than the present time were.
Jitter spreads the returning callers over [1 - JITTER, 1 + JITTER] of that time; it is drawn from the
ticket's number by a multiplicative hash (Knuth, TAOCP 3, 6.4), so a simulation repeats exactly.
"""

from typing import Final

WINDOW_S: Final = 1.0
FIRST_S: Final = 1.0
MAX_S: Final = 32.0
DROPS_PER_STEP: Final = 3
JITTER: Final = 0.25


class Pushback:
    """The pushback of one class, in seconds."""

    __slots__ = ("_drops", "_window_end", "base_s")

    def __init__(self) -> None:
        self.base_s = FIRST_S
        self._drops = 0
        self._window_end = 0.0

    def refused(self, ticket_id: int, *, now: float) -> float:
        """Count a refusal and return the seconds after which this ticket's caller may come again."""
        self._roll(now)
        self._drops += 1
        spread = ((ticket_id * 2654435761) & 0xFFFFFFFF) / 2**32
        return self.base_s * (1 - JITTER + 2 * JITTER * spread)

    def _roll(self, now: float) -> None:
        """Close the windows that have ended since the last refusal; those without a refusal shrink the time."""
        if now < self._window_end:
            return
        if self._drops > DROPS_PER_STEP * self.base_s:
            self.base_s = min(MAX_S, self.base_s * 2)
        elif self._drops < self.base_s:
            self.base_s = max(FIRST_S, self.base_s - 1)
        silent_windows = int((now - self._window_end) / WINDOW_S)
        self.base_s = max(FIRST_S, self.base_s - min(silent_windows, MAX_S))
        self._drops = 0
        self._window_end = now + WINDOW_S
