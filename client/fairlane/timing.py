"""The clock, the sleep and the chance of a client, so that tests can bring their own."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Of the sync client: `now_s` is monotonic seconds, `sleep` blocks the thread, `chance` is in [0, 1)."""

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class AsyncTiming:
    """Of the asyncio client: as `Timing`, but `sleep` suspends the task."""

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
