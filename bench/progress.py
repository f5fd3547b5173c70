"""Shows which phase runs and how many seconds it has left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

# The display shares the cores with what it shows.
REFRESH_PER_S: Final = 2


class PhaseProgress:
    """A rich progress display, one line per phase. Use as a context."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(30),
            TextColumn("{task.fields[left]}"),
            console=console,
            refresh_per_second=REFRESH_PER_S,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @asynccontextmanager
    async def phase(self, name: str, duration_s: float) -> AsyncIterator[None]:
        """Count down while the body runs, and mark the phase done after it."""
        task = self._progress.add_task(name, total=duration_s, left="")
        ticker = asyncio.create_task(self._tick(task, duration_s))
        try:
            yield
        finally:
            ticker.cancel()
        self._progress.update(task, completed=duration_s, left="done")

    async def _tick(self, task: TaskID, duration_s: float) -> None:
        begin_s = asyncio.get_running_loop().time()
        while True:
            passed_s = asyncio.get_running_loop().time() - begin_s
            left_s = duration_s - passed_s
            left = f"{left_s:3.0f} s left" if left_s > 0 else "finishing"
            self._progress.update(task, completed=min(passed_s, duration_s), left=left)
            await asyncio.sleep(1 / REFRESH_PER_S)
