"""When a backend is given no more batches of a model, and how it comes back: a circuit breaker.

Source: M. Nygard, "Release It!" (2007), ch. 5; the three states and the single probe are those of Hystrix
and resilience4j. One breaker for each model of each backend: a model that hangs or is being reloaded
does not take the others of its backend along, and a backend that is gone opens the breakers of all the
models that are asked of it (whether it lives at all is the catalogue's question, asked every second).

    CLOSED     batches go out. Opened at once by a lost connection or a model that is stuck (patience.py), by
               FAILURES_TO_OPEN answers in a row that are UNAVAILABLE or not what was asked; any other answer starts
               the count anew.
    OPEN       nothing goes out until `retry_at`. What waits, waits (up to its deadline), or goes elsewhere.
    HALF_OPEN  one batch goes out, the probe. An answer closes the breaker, anything else opens it again.

An answer of any batch closes the breaker: that is, it is forgotten (backend.py).

The n-th opening in a row lasts FIRST_BACKOFF_S * 2^(n-1), at most LAST_BACKOFF_S. Only the probe's failure
counts while the breaker is not closed, so a dozen batches that are lost together are one opening. Hence a
backend that is gone for d seconds costs no more than 1 + log2(d / FIRST_BACKOFF_S) + d / LAST_BACKOFF_S probes,
and one that is back is found within max(FIRST_BACKOFF_S, d) or LAST_BACKOFF_S, whichever is sooner.

Slow is not broken: how long a batch may take, and what opens the breaker of a model of which nothing ends any more,
stands in patience.py.
"""

from enum import Enum
from typing import Final

FAILURES_TO_OPEN: Final = 5
FIRST_BACKOFF_S: Final = 0.2
LAST_BACKOFF_S: Final = 30.0


class BreakerState(Enum):
    """Whether batches go out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """One model of one backend, from its first failure to the next answer. Times in monotonic seconds.

    Attributes:
        state: see the module.
        since: when the state was entered.
        why: what opened it last; empty before that.
        retry_at: when a probe may go out, while OPEN.
        openings: in a row, without an answer in between.
    """

    __slots__ = ("_failures", "_probe", "openings", "retry_at", "since", "state", "why")

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        self.since = 0.0
        self.why = ""
        self.retry_at = 0.0
        self.openings = 0
        self._failures = 0
        self._probe: int | None = None

    @property
    def takes_batch(self) -> bool:
        """Whether a batch may go out now."""
        return self.state is BreakerState.CLOSED or (self.state is BreakerState.HALF_OPEN and self._probe is None)

    def sent(self, batch_id: int) -> None:
        """A batch has gone out; in HALF_OPEN it is the probe."""
        if self.state is BreakerState.HALF_OPEN:
            self._probe = batch_id

    def tick(self, *, now: float) -> bool:
        """Let time pass; True where the breaker has just become ready for a probe."""
        if self.state is not BreakerState.OPEN or now < self.retry_at:
            return False
        self._enter(BreakerState.HALF_OPEN, now)
        return True

    def failed(self, batch_id: int, why: str, *, at_once: bool, now: float) -> None:
        """A batch got no usable answer.

        Args:
            batch_id: of the batch.
            why: in a word, for the snapshot.
            at_once: open now, however many failed before.
            now: monotonic seconds.
        """
        if self.state is BreakerState.CLOSED:
            self._failures += 1
            if not at_once and self._failures < FAILURES_TO_OPEN:
                return
        elif batch_id != self._probe:
            return
        self.why = why
        self.openings += 1
        self.retry_at = now + min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(self.openings - 1, 32))
        self._enter(BreakerState.OPEN, now)

    def withdrawn(self, batch_id: int) -> None:
        """A batch was taken back before there was an answer: nothing is learned, and another may be the probe."""
        if batch_id == self._probe:
            self._probe = None

    def _enter(self, state: BreakerState, now: float) -> None:
        self.state = state
        self.since = now
        self._probe = None
