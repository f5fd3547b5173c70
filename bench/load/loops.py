"""The two ways of offering load: open loop (arrivals never wait for answers) and closed loop (always N outstanding)."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.recording.recording import Recorder

SATURATING_OUTSTANDING: Final = 64  # enough to keep every instance busy with full batches


class LoopSender(Protocol):
    """What a loop needs of a sender. Times are seconds from the start of the run."""

    recorder: Recorder

    def now_s(self) -> float:
        """Time now."""

    def fire(self, due_s: Sequence[float]) -> None:
        """Send a request for each due time in one write, without waiting."""

    async def request(self, number: int) -> None:
        """Send a booked request and wait for its end."""


async def open_loop(sender: LoopSender, offsets_s: NDArray[np.float64], tick_s: float = 0.0) -> None:
    """Fire one request at every offset. Where the loop is behind it sends at once and never skips an arrival.

    Args:
        sender: what sends.
        offsets_s: when each request is due, ascending, shape [requests].
        tick_s: what is due within a tick is sent together at its end, as by a client that sends in batches. A write a
            request is most of what a flood costs its sender, who here shares the machine with what it measures.
    """
    for at_s, due_s in _departures(offsets_s, tick_s):
        # A delay of 0 yields once: requests fired before go out, and answers are taken, even when behind.
        await asyncio.sleep(max(0.0, at_s - sender.now_s()))
        sender.fire(due_s)


def _departures(offsets_s: NDArray[np.float64], tick_s: float) -> Iterator[tuple[float, list[float]]]:
    """When something leaves, and the due times of what leaves then."""
    if not tick_s:
        yield from ((due_s, [due_s]) for due_s in offsets_s.tolist())
        return
    for tick, due_s in groupby(offsets_s.tolist(), key=lambda due_s: int(due_s / tick_s)):
        yield (tick + 1) * tick_s, list(due_s)


async def closed_loop(sender: LoopSender, outstanding: int, duration_s: float) -> None:
    """Keep `outstanding` requests with the server until `duration_s`: what it answers then is its capacity."""
    await asyncio.gather(*(_one_place(sender, duration_s) for _ in range(outstanding)))


async def _one_place(sender: LoopSender, duration_s: float) -> None:
    while sender.now_s() < duration_s:
        await sender.request(sender.recorder.arrive(sender.now_s()))
