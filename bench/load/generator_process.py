"""Runs streams at the same time, one generator process each, and collects what they recorded."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from bench.load.job import Job
from bench.processes.piped_process import PipedProcess
from bench.recording.recording import Recording

# Between the start line and the first arrival: the processes read their line and sleep until then.
HEAD_START_S: Final = 0.25


class GeneratorError(RuntimeError):
    """A generator process failed; the message holds the end of what it wrote to stderr."""


class GeneratorProcess(PipedProcess):
    """One `python -m bench.load.generator`. An async context: the process is gone when it is left."""

    def __init__(self, job: Job) -> None:
        super().__init__("bench.load.generator")
        self._job = job

    async def prepare(self) -> None:
        """Hand over the job and wait until the process is connected.

        Raises:
            GeneratorError: it ended instead.
        """
        self.tell(self._job.to_json())
        if await self.answer() != b"ready\n":
            raise await self._failure()

    def begin(self, start_s: float) -> None:
        """Start the stream at a moment of the monotonic clock."""
        self.tell(repr(start_s))

    async def recording(self) -> Recording:
        """Wait for the end of the run.

        Raises:
            GeneratorError: the process failed.
        """
        if await self.wait() != 0:
            raise await self._failure()
        return Recording.load(self._job.out)

    async def _failure(self) -> GeneratorError:
        return GeneratorError(f"generator of stream {self._job.name} failed:\n{await self.stderr_tail()}")


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
