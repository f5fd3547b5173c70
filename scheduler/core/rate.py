"""How much of a tenant is let in a second, in requests, rows or seconds of service: a token bucket, without a timer.

A bucket of `burst` tokens fills at `per_s`. A ticket that is let in takes what it costs: one token, its rows, or the
seconds that it is expected to take of an instance's time. It needs as much, or a full bucket where it costs more than
that, and is else refused, with the exact time until there is enough. So in any time of t seconds no more is let in than
max(burst, the largest ticket) + per_s * t, and a tenant that asks for less is never refused. (J. Turner, "New
directions in communications", IEEE Communications 1986; the bucket as a meter.) A ticket that costs more leaves a
debt, which the rate pays off: to refuse it for good would make a bound on size of one on the pace.

Seconds of service are known when a batch has ended: what was taken is then corrected (`Charge`), so that the bucket
holds what was used, and the estimate of what is still out. A ticket that was not served gives its seconds back.

What the bucket holds is worked out from `now` when somebody asks, so a bucket that nobody asks costs nothing, and one
that has had the time to fill up is like a new one and need not be kept.
"""

from dataclasses import dataclass
from enum import Enum


class RateUnit(Enum):
    """What a rate counts."""

    REQUESTS = "requests"
    ROWS = "rows"
    SECONDS = "seconds of service"


@dataclass(frozen=True, slots=True)
class Rate:
    """A tenant's rate.

    Attributes:
        unit: what it counts.
        per_s: of them a second, on average.
        burst: of them at once after a silence.
    """

    unit: RateUnit
    per_s: float
    burst: float

    def __str__(self) -> str:
        return f"{self.per_s:g} {self.unit.value} a second, {self.burst:g} at once"


class TokenBucket:
    """One tenant's bucket; it starts full. Times in monotonic seconds.

    Attributes:
        rate: the tenant's.
        full_at: when it is full, where nothing is taken until then.
    """

    __slots__ = ("full_at", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.full_at = 0.0

    def wait_s(self, cost: float = 1.0, *, now: float) -> float:
        """Seconds until a ticket of this cost is let in; 0 where it is now."""
        rate = self.rate
        if cost > rate.burst:
            cost = rate.burst
        return max(0.0, self.full_at - (rate.burst - cost) / rate.per_s - now)

    def take(self, cost: float = 1.0, *, now: float) -> None:
        """Take what a ticket costs; `wait_s` has said that it is let in. Less than nothing is given back."""
        self.full_at = max(self.full_at, now) + cost / self.rate.per_s


class Charge:
    """The seconds that one ticket has taken from its tenant's bucket before anybody knew what it takes."""

    __slots__ = ("_bucket", "_seconds")

    def __init__(self, bucket: TokenBucket, seconds: float) -> None:
        self._bucket = bucket
        self._seconds = seconds

    def settle(self, used_s: float, *, now: float) -> None:
        """It took so many seconds; what it takes at another try is taken then."""
        self._bucket.take(used_s - self._seconds, now=now)
        self._seconds = 0.0
