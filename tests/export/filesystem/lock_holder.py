"""Another process that has a folder's lock, and time as those see it who wait for the lock."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]
Process = subprocess.Popen[str]

HOLDER: Final = """
import sys
from pathlib import Path
from export.filesystem.folder_lock import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


class Clock:
    """In place of the module `time`: it passes where one sleeps, and something may happen meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.meanwhile: Callable[[], Any] = lambda: None

    def monotonic(self) -> float:
        """The time in s."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.now += seconds
        self.meanwhile()


def python(*args: str) -> Process:
    """Python on this tree, with pipes."""
    return subprocess.Popen(
        [sys.executable, *args],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def held(folder: Path) -> Iterator[Process]:
    """A process that has a folder's lock until it is let go, or the block ends."""
    process = python("-c", HOLDER, str(folder))
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        let_go(process)
    assert process.returncode == 0


def let_go(process: Process) -> None:
    """End a process that has a lock."""
    if process.returncode is None:
        process.communicate("let go\n")
