"""Shows what runs, how long it still takes, and how much of the whole is done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

# The display shares the cores with what it shows.
REFRESH_PER_S: Final = 2


class RunProgress:
    """A rich progress display, one line that changes with each step; a line a step in a log file. Use as a context."""

    def __init__(self, console: Console, title: str, total_s: float) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[title]}"),
            BarColumn(24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            refresh_per_second=REFRESH_PER_S,
        )
        self._title = title
        self._task = self._progress.add_task("", total=total_s, title=title)

    def __enter__(self) -> Self:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @asynccontextmanager
    async def step(self, name: str, duration_s: float) -> AsyncIterator[None]:
        """Name what runs while the body runs, and count it as done after it."""
        if not self._progress.console.is_terminal:
            self._progress.console.print(f"{self._title}: {name}, {duration_s:.0f} s", soft_wrap=True)
        ticker = asyncio.create_task(self._tick(name, duration_s))
        try:
            yield
        finally:
            ticker.cancel()
        self._progress.advance(self._task, duration_s)

    async def _tick(self, name: str, duration_s: float) -> None:
        begin_s = asyncio.get_running_loop().time()
        while True:
            left_s = duration_s - (asyncio.get_running_loop().time() - begin_s)
            left = f"{left_s:.0f} s left" if left_s > 0 else "finishing"
            self._progress.update(self._task, description=f"{name}, {left}")
            await asyncio.sleep(1 / REFRESH_PER_S)
