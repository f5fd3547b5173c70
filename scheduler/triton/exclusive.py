"""Calls that a backend has by itself: nothing else of the model is there meanwhile.

Triton's dynamic batcher runs together what it has at a time, so a request is alone only where no other is out.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

# What is out at most keeps the others waiting for so long, before a call that wants to be alone gives up.
DRAIN_S: Final = 2.0

Place = tuple[str, str]


class Exclusives:
    """Who is out, by place: a backend and a model."""

    def __init__(self) -> None:
        self._out: Counter[Place] = Counter()
        self._turns: defaultdict[Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        # While somebody is alone, or waits to be: what the others wait for, and what he waits for.
        self._open: dict[Place, asyncio.Event] = {}
        self._empty: dict[Place, asyncio.Event] = {}

    @asynccontextmanager
    async def shared(self, place: Place) -> AsyncIterator[None]:
        """Be there beside others, but for one that is alone."""
        while (opened := self._open.get(place)) is not None:
            await opened.wait()
        self._out[place] += 1
        try:
            yield
        finally:
            self._out[place] -= 1
            if not self._out[place]:
                del self._out[place]
                if (empty := self._empty.get(place)) is not None:
                    empty.set()

    @asynccontextmanager
    async def alone(self, place: Place, drain_s: float | None = None) -> AsyncIterator[None]:
        """Be there alone, in turn with others that want to be.

        Args:
            place: where.
            drain_s: seconds to wait for those that are there already; None: as long as it takes.

        Raises:
            TimeoutError: others were still there then.
        """
        async with self._turns[place]:
            opened = self._open[place] = asyncio.Event()
            try:
                if self._out[place]:
                    empty = self._empty[place] = asyncio.Event()
                    async with asyncio.timeout(drain_s):
                        await empty.wait()
                yield
            finally:
                del self._open[place]
                self._empty.pop(place, None)
                opened.set()
