"""Runs streams at the same time, one generator process each, and collects what they recorded."""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Final, Self

from bench.load.job import Job
from bench.processes.parent_death import killed_with_parent
from bench.recording.recording import Recording

# Between the start line and the first arrival: the processes read their line and sleep until then.
HEAD_START_S: Final = 0.25


class GeneratorError(RuntimeError):
    """A generator process failed; the message holds the end of what it wrote to stderr."""


class GeneratorProcess:
    """One `python -m bench.load.generator`. An async context: the process is gone when it is left."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        command = killed_with_parent(sys.executable, "-m", "bench.load.generator")
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running()
        if process.returncode is None:
            process.kill()
        await process.communicate()  # reads the pipes to their end, so that their transports close

    async def prepare(self) -> None:
        """Hand over the job and wait until the process is connected.

        Raises:
            GeneratorError: it ended instead.
        """
        process = self._running()
        self._tell(self._job.to_json())
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise await self._failure()

    def begin(self, start_s: float) -> None:
        """Start the stream at a moment of the monotonic clock."""
        self._tell(repr(start_s))

    async def recording(self) -> Recording:
        """Wait for the end of the run.

        Raises:
            GeneratorError: the process failed.
        """
        if await self._running().wait() != 0:
            raise await self._failure()
        return Recording.load(self._job.out)

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "use GeneratorProcess as a context"
        return self._process

    def _tell(self, line: str) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(line.encode() + b"\n")

    async def _failure(self) -> GeneratorError:
        _, stderr = await self._running().communicate()
        return GeneratorError(f"generator of stream {self._job.name} failed:\n{stderr.decode()[-2000:]}")


async def run_jobs(jobs: Sequence[Job]) -> dict[str, Recording]:
    """Run all jobs, starting at the same moment.

    Args:
        jobs: with different names and files.

    Returns:
        The recording of each job by its name.

    Raises:
        GeneratorError: a generator could not connect or failed.
    """
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(GeneratorProcess(job)) for job in jobs]
        await asyncio.gather(*(process.prepare() for process in processes))
        start_s = time.monotonic() + HEAD_START_S
        for process in processes:
            process.begin(start_s)
        recordings = await asyncio.gather(*(process.recording() for process in processes))
    return {job.name: recording for job, recording in zip(jobs, recordings, strict=True)}
