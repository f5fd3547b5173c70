"""How the process itself fares: CPU, event-loop lag, pauses of the garbage collector."""

import asyncio
import gc
import time
from typing import Any, Final

from scheduler.telemetry.histogram import SECONDS, Histogram

# Ten samples a second find what blocks the loop for long, at no cost worth telling.
LAG_INTERVAL_S: Final = 0.1


class ProcessWatch:
    """Measures this process while it runs.

    Attributes:
        loop_lag: how late the event loop woke, each LAG_INTERVAL_S.
        gc_pause: how long each run of the collector took; nothing else runs meanwhile.
    """

    def __init__(self) -> None:
        self.loop_lag = Histogram(SECONDS)
        self.gc_pause = Histogram(SECONDS)
        self._collecting_since = 0.0

    @staticmethod
    def cpu_s() -> float:
        """CPU seconds that the process has used, user and system."""
        return time.process_time()

    async def watch(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        gc.callbacks.append(self._collector)
        try:
            while True:
                due = loop.time() + LAG_INTERVAL_S
                await asyncio.sleep(LAG_INTERVAL_S)
                self.loop_lag.observe(max(0.0, loop.time() - due))
        finally:
            gc.callbacks.remove(self._collector)

    def _collector(self, phase: str, info: dict[str, Any]) -> None:
        del info
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self.gc_pause.observe(time.perf_counter() - self._collecting_since)
