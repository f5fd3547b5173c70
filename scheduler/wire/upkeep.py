"""What a server does about a connection on which nothing happens, or that is old: pings, a drain, a cut."""

import random
from collections.abc import Callable
from typing import Final

from scheduler.wire.outlet import Outlet
from scheduler.wire.sizes import ServerSizes

PING: Final = b"alive?\0\0"
# Ages differ by as much, so that clients that came together do not all come again together.
AGE_SPREAD: Final = 0.1
# A client that pings too often is told so often before it is cut.
STRIKES: Final = 2


class Upkeep:
    """One timer for one connection.

    Args:
        outlet: the connection.
        sizes: the times.
        busy: whether it has calls.
        drain: tells the peer to make no more calls, and why.
    """

    def __init__(
        self, outlet: Outlet, sizes: ServerSizes, busy: Callable[[], bool], drain: Callable[[str], None]
    ) -> None:
        self._outlet = outlet
        self._sizes = sizes
        self._busy = busy
        self._drain = drain
        now = outlet.loop.time()
        spread = random.uniform(1 - AGE_SPREAD, 1 + AGE_SPREAD)  # noqa: S311 - no secret
        self._age_at = None if sizes.age_s is None else now + sizes.age_s * spread
        self._cut_at: float | None = now + sizes.handshake_s
        self._idle_since = now
        self._pinged_at: float | None = None
        self._told = False
        self._strikes = 0
        self._ping_heard_at: float | None = None
        self._timer = outlet.loop.call_later(0, self._tick)

    def greeted(self) -> None:
        """The peer speaks HTTP/2."""
        if not self._told:
            self._cut_at = None

    def idle(self) -> None:
        """The last call has ended."""
        self._idle_since = self._outlet.loop.time()

    def answered(self) -> None:
        """Something of a call was sent: pings that come meanwhile may be about it."""
        self._strikes = 0
        self._ping_heard_at = None

    def too_many_pings(self) -> bool:
        """Hear a ping, and tell whether that was one too many."""
        now = self._outlet.loop.time()
        last, self._ping_heard_at = self._ping_heard_at, now
        if last is not None and now - last < self._sizes.client_ping_s:
            self._strikes += 1
        return self._strikes > STRIKES

    def close(self) -> None:
        """The connection has ended."""
        self._timer.cancel()

    def _tick(self) -> None:
        now = self._outlet.loop.time()
        if (self._cut_at is not None and now >= self._cut_at) or self._silent(now):
            self._outlet.cut()
            return
        if not self._told:
            if self._age_at is not None and now >= self._age_at:
                self._tell("max_age")
                self._cut_at = None if self._sizes.grace_s is None else now + self._sizes.grace_s
            elif not self._busy() and now >= self._idle_since + self._sizes.idle_s:
                self._tell("max_idle")
        self._timer = self._outlet.loop.call_at(self._next(now), self._tick)

    def _silent(self, now: float) -> bool:
        """Whether the peer has gone; asks it where it was silent for long."""
        heard_at = self._outlet.heard_at
        if self._pinged_at is not None and heard_at >= self._pinged_at:
            self._pinged_at = None
        if self._pinged_at is not None:
            return now >= self._pinged_at + self._sizes.ping_timeout_s
        if now >= heard_at + self._sizes.keepalive_s:
            self._pinged_at = now
            self._outlet.connection.ping(PING)
            self._outlet.soon()
        return False

    def _tell(self, why: str) -> None:
        self._told = True
        self._drain(why)

    def _next(self, now: float) -> float:
        """When to look again."""
        if self._pinged_at is None:
            due = [self._outlet.heard_at + self._sizes.keepalive_s]
        else:
            due = [self._pinged_at + self._sizes.ping_timeout_s]
        if self._cut_at is not None:
            due.append(self._cut_at)
        if not self._told:
            if self._age_at is not None:
                due.append(self._age_at)
            due.append((now if self._busy() else self._idle_since) + self._sizes.idle_s)
        return max(min(due), now)
