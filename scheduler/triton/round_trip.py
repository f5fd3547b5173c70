"""How far away a backend is, by its probes."""

from collections import deque
from typing import Final

# A probe that meets a busy moment says nothing of the network; of so many one meets none.
PROBES: Final = 16
# Below this it is the two programs that take the time, not a network.
NETWORK_S: Final = 0.005


class RoundTrip:
    """The least of the last PROBES probes of one backend."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=PROBES)

    def probed(self, took_s: float) -> None:
        """A probe was answered after so many seconds."""
        self._latest.append(took_s)

    @property
    def seconds(self) -> float:
        """The round trip in whole milliseconds, so that it rarely changes; 0: no network to speak of, or not known."""
        if len(self._latest) < PROBES // 4:
            return 0.0
        least_s = min(self._latest)
        return round(least_s, 3) if least_s >= NETWORK_S else 0.0
