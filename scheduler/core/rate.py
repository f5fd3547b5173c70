"""How many tickets of a tenant are let in a second: a token bucket, without a timer.

A bucket of `burst` tokens fills at `rate_per_s`; a ticket that is let in takes one token, and one that
finds less than a whole token is refused, with the exact time until there is one. So in any time of t
seconds no more than burst + rate_per_s * t tickets are let in, and a tenant that asks for less is never
refused. (J. Turner, "New directions in communications", IEEE Communications 1986; the bucket as a meter.)

What the bucket holds is worked out from `now` when somebody asks, so a bucket that nobody asks costs
nothing, and one that has had the time to fill up is like a new one and need not be kept.
"""


class TokenBucket:
    """One tenant's bucket; it starts full. Times in monotonic seconds.

    Attributes:
        full_at: when it is full, where nothing is taken until then.
    """

    __slots__ = ("_burst", "_rate_per_s", "full_at")

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self.full_at = 0.0

    def wait_s(self, *, now: float) -> float:
        """Seconds until there is a whole token; 0 where there is one."""
        token_at = self.full_at - (self._burst - 1) / self._rate_per_s
        return max(0.0, token_at - now)

    def take(self, *, now: float) -> None:
        """Take a token; `wait_s` has said that there is one."""
        self.full_at = max(self.full_at, now) + 1 / self._rate_per_s
