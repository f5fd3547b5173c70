"""How many executions are under way at a time where a network lies between here and the backend.

An instance that takes 5 ms for a batch, 20 ms away, gives an answer every 25 ms where the next batch leaves only when
the last answer is here. Five batches under way keep it busy: the bandwidth-delay product, rate times round trip, beside
the one that runs. In general an instance needs 1 + round trip / service.

The round trip is measured by probes (triton/round_trip.py). The service is what the fastest of the last LATEST batches
took beyond it. Where all instances are busy every batch also waits in the backend's own queue. Then Little's law tells
the service: latency times instances over what is under way. The lesser of the two is taken.
"""

from collections import deque
from math import ceil
from typing import Final

LATEST: Final = 16
# However short the service: a bound on what cannot be overtaken.
MOST_WAYS: Final = 64


class Pipe:
    """One model at one backend behind a network. Times in seconds."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=LATEST)

    def ended(self, latency_s: float, round_trip_s: float, under_way: int, instances: int) -> None:
        """A batch was answered so long after it was sent, as one of so many under way."""
        service_s = min(latency_s - round_trip_s, latency_s * instances / under_way)
        self._latest.append(max(service_s, round_trip_s / MOST_WAYS))

    def ways(self, instances: int, round_trip_s: float) -> int:
        """Executions that are under way while every instance is busy; `instances` before the first answer."""
        if not self._latest:
            return instances
        # Not one more for a rounding in the last bit.
        return ceil(instances * min(MOST_WAYS, 1 + round_trip_s / min(self._latest)) - 1e-6)
