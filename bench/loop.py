"""The two ways of offering load: open loop (arrivals never wait for answers) and closed loop (always N outstanding)."""

import asyncio
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bench.recording import Recorder


class Offered(Protocol):
    """What a loop needs of a sender. Times are seconds from the start of the run."""

    recorder: Recorder

    def now_s(self) -> float:
        """Time now."""

    def fire(self, due_s: float) -> None:
        """Send without waiting."""

    async def request(self, number: int) -> None:
        """Send a booked request and wait for its end."""


async def open_loop(sender: Offered, offsets_s: NDArray[np.float64]) -> None:
    """Fire one request at every offset. Where the loop is behind it sends at once and never skips an arrival."""
    for due_s in offsets_s.tolist():
        # A delay of 0 yields once: requests fired before go out, and answers are taken, even when behind.
        await asyncio.sleep(max(0.0, due_s - sender.now_s()))
        sender.fire(due_s)


async def closed_loop(sender: Offered, outstanding: int, duration_s: float) -> None:
    """Keep `outstanding` requests with the server until `duration_s`: what it answers then is its capacity."""
    await asyncio.gather(*(_one_place(sender, duration_s) for _ in range(outstanding)))


async def _one_place(sender: Offered, duration_s: float) -> None:
    while sender.now_s() < duration_s:
        await sender.request(sender.recorder.arrive(sender.now_s()))
