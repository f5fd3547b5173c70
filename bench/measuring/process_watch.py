"""Watches the memory and the CPU time of one process while load runs."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np
import psutil

SAMPLE_EVERY_S: Final = 1.0
MIB: Final = 1024 * 1024


@dataclass(kw_only=True)
class ProcessUsage:
    """What a process used: resident memory over time, and CPU time of the process alone (children not counted).

    Attributes:
        at_s: seconds since the watch began, one per sample.
        rss_mib: resident set size at those times.
        cpu_s: user and system time between the first and the last sample.
    """

    at_s: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def rss_mib_at(self, fraction: float) -> float:
        """Median of the three samples nearest to that part (0 to 1) of the watch; NaN without samples."""
        if not self.at_s:
            return float("nan")
        wanted_s = self.at_s[0] + fraction * (self.at_s[-1] - self.at_s[0])
        nearest = np.argsort(np.abs(np.array(self.at_s) - wanted_s), kind="stable")[:3]
        return float(np.median(np.array(self.rss_mib)[nearest]))


class ProcessWatch:
    """An async context that samples a process once per second until it is left or the process ends."""

    def __init__(self, pid: int) -> None:
        self.usage = ProcessUsage()
        self._process = psutil.Process(pid)
        self._begin_s, self._begin_cpu_s = time.monotonic(), self._cpu_s()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError, psutil.NoSuchProcess):
            await self._task
        with suppress(psutil.NoSuchProcess):
            self._book()

    async def _sample(self) -> None:
        while True:
            self._book()
            await asyncio.sleep(SAMPLE_EVERY_S)

    def _book(self) -> None:
        self.usage.at_s.append(time.monotonic() - self._begin_s)
        self.usage.rss_mib.append(self._process.memory_info().rss / MIB)
        self.usage.cpu_s = self._cpu_s() - self._begin_cpu_s

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
