import asyncio
import math
import os
import sys
from collections.abc import Awaitable, Callable

import pytest

from bench.measuring.process_watch import ProcessUsage, ProcessWatch


def test_memory_at_a_part_of_the_run_is_robust_to_one_spike() -> None:
    usage = ProcessUsage(at_s=[float(i) for i in range(9)], rss_mib=[10, 11, 12, 13, 99, 15, 16, 17, 18])
    assert [usage.rss_mib_at(part) for part in (0, 0.5, 1)] == [11, 15, 17]
    assert math.isnan(ProcessUsage().rss_mib_at(0))


async def test_this_process_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measuring.process_watch.SAMPLE_EVERY_S", 0.02)
    async with ProcessWatch(os.getpid()) as watch:
        # The kernel counts CPU time in ticks of 10 ms; a few samples may come before the first.
        while len(watch.usage.at_s) < 3 or watch.usage.cpu_s == 0:
            sum(range(10_000))
            await asyncio.sleep(0)
    assert watch.usage.cpu_s > 0
    assert min(watch.usage.rss_mib) > 1


async def test_a_process_that_ends_ends_the_watch(
    monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Awaitable[None]]
) -> None:
    monkeypatch.setattr("bench.measuring.process_watch.SAMPLE_EVERY_S", 0.02)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(60)")
    async with ProcessWatch(process.pid) as watch:
        await eventually(lambda: bool(watch.usage.rss_mib))
        others = asyncio.all_tasks()
        process.kill()
        await process.wait()
        # The task that samples is the one that ends.
        await eventually(lambda: others > asyncio.all_tasks())
    assert watch.usage.rss_mib
