"""A child process of this program that is told lines on stdin and answers with lines on stdout."""

import asyncio
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

from bench.processes.parent_death import killed_with_parent

# Characters of stderr that an error shows.
TAIL: Final = 2000


class PipedProcess:
    """`python -m MODULE ARGUMENTS...`. An async context: the process is gone when it is left.

    Args:
        module: to run.
        arguments: of it.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = killed_with_parent(sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, stderr=pipe)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running()
        if process.returncode is None:
            process.kill()
        await process.communicate()  # reads the pipes to their end, so that their transports close

    def tell(self, line: str) -> None:
        """Write one line to its stdin."""
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(line.encode() + b"\n")

    async def answer(self) -> bytes:
        """The next line of its stdout, with its end; empty where the process has ended."""
        stdout = self._running().stdout
        assert stdout is not None
        return await stdout.readline()

    async def wait(self) -> int:
        """Wait for its end; its exit code."""
        return await self._running().wait()

    async def stderr_tail(self) -> str:
        """Wait for its end; the last TAIL characters of what it wrote to stderr."""
        _, stderr = await self._running().communicate()
        return stderr.decode(errors="replace")[-TAIL:]

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, f"use {type(self).__name__} as a context"
        return self._process
