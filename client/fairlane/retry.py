"""When to try again: a state machine without I/O, the same for the sync and the asyncio client.

Time is an argument (`now_s`, monotonic seconds), and so is chance (a number in [0, 1)). The rules are those of gRPC's
retry design, https://github.com/grpc/proposal/blob/master/A6-client-retries.md: exponential backoff with jitter of
20 percent, the server's pushback in its place where there is one, and a token budget that stops retries when most
calls fail. Two rules are stricter, because an inference is not known to be idempotent: a call is sent again only where
the server said that it refused it (a pushback), or where no connection was made.
"""

import threading
from dataclasses import dataclass
from typing import Final

from fairlane.errors import FairlaneError, Overloaded, Unavailable

# A6 caps attempts at 5; four fit a default pushback of some hundred milliseconds into the usual deadline.
DEFAULT_MAX_ATTEMPTS: Final = 4
DEFAULT_INITIAL_BACKOFF_S: Final = 0.05
DEFAULT_MAX_BACKOFF_S: Final = 2.0
# The numbers of A6's example: five failures in a row stop retries, ten successes earn one back.
DEFAULT_BUDGET_TOKENS: Final = 10.0
DEFAULT_BUDGET_RATIO: Final = 0.1

BACKOFF_FACTOR: Final = 2.0
BACKOFF_JITTER: Final = 0.2
# Only ever later: to come before the time the server named is to be refused again.
PUSHBACK_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a client retries.

        client = fairlane.Client(retry=fairlane.RetryPolicy(max_attempts=1))  # never

    Attributes:
        max_attempts: How often one call is sent at most. 1 turns retries off.
        initial_backoff_s: Seconds before the first retry, if the server named no time.
        max_backoff_s: Seconds that the backoff grows to at most.
        budget_tokens: Size of the budget that all calls of a client share. A refused or unanswered attempt takes one
            token. A retry needs more than half of the tokens.
        budget_ratio: Tokens that a success puts back.

    Raises:
        ValueError: if a number is out of its range.
    """

    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    initial_backoff_s: float = DEFAULT_INITIAL_BACKOFF_S
    max_backoff_s: float = DEFAULT_MAX_BACKOFF_S
    budget_tokens: float = DEFAULT_BUDGET_TOKENS
    budget_ratio: float = DEFAULT_BUDGET_RATIO

    def __post_init__(self) -> None:
        """Check every number, so that a bad policy fails where it is written."""
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts: expected 1 or more, got {self.max_attempts}")
        for name in ("initial_backoff_s", "max_backoff_s", "budget_tokens", "budget_ratio"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")

    def backoff_s(self, *, attempts: int, chance: float) -> float:
        """Seconds to wait after `attempts` failed ones: min(initial * 2^(attempts - 1), max), plus or minus 20 %."""
        backoff_s = min(self.initial_backoff_s * BACKOFF_FACTOR ** (attempts - 1), self.max_backoff_s)
        return backoff_s * (1 + BACKOFF_JITTER * (2 * chance - 1))


class RetryBudget:
    """gRPC's retry throttling: tokens in [0, size], minus 1 per failure, plus `ratio` per success. Thread-safe."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._size = policy.budget_tokens
        self._ratio = policy.budget_ratio
        self._tokens = self._size
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        """Tokens left."""
        return self._tokens

    def succeeded(self) -> None:
        """Put back `ratio` tokens."""
        with self._lock:
            self._tokens = min(self._size, self._tokens + self._ratio)

    def failed(self) -> bool:
        """Take one token and say whether what is left allows a retry."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > self._size / 2


class CallRetry:
    """The attempts of one call: `begin`, then `succeeded` or `failed`, and again as long as `failed` gives a wait."""

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, *, deadline_s: float | None, repeatable: bool) -> None:
        self.attempts = 0
        self._policy = policy
        self._budget = budget
        self._deadline_s = deadline_s
        self._repeatable = repeatable

    def begin(self, *, now_s: float) -> float | None:
        """Count an attempt and return the seconds it may take: what is left of the whole call's time; None: no limit.

        Zero or less means that there is no time left: nothing is counted, and nothing must be sent.
        """
        left_s = None if self._deadline_s is None else self._deadline_s - now_s
        if left_s is None or left_s > 0:
            self.attempts += 1
        return left_s

    def succeeded(self) -> None:
        """Credit the budget."""
        self._budget.succeeded()

    def failed(self, error: FairlaneError, *, now_s: float, chance: float) -> float | None:
        """Return the seconds to wait before the next attempt, or None to give up and raise `error`."""
        if not isinstance(error, Overloaded | Unavailable):
            return None
        within_budget = self._budget.failed()
        if not (within_budget and self._repeatable and self.attempts < self._policy.max_attempts):
            return None
        wait_s = self._wait_s(error, chance)
        if wait_s is None or (self._deadline_s is not None and now_s + wait_s >= self._deadline_s):
            return None
        return wait_s

    def _wait_s(self, error: FairlaneError, chance: float) -> float | None:
        if error.retry_after_s is not None:
            return error.retry_after_s * (1 + PUSHBACK_JITTER * chance)
        if isinstance(error, Unavailable) and error.never_sent:
            return self._policy.backoff_s(attempts=self.attempts, chance=chance)
        return None
