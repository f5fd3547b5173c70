"""The search of `fairlane capacity`: a fresh server for each trial, and bisection for the knee."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc.aio

from bench.load.input_range import with_accepted_range
from bench.load.stream import Stream
from bench.measuring.metric import STREAM_METRICS
from bench.measuring.other_processes import OtherProcesses
from bench.measuring.pool import Totals
from bench.targets.fairlane import fairlane
from bench.targets.target import Target, TargetError
from bench.targets.triton import triton
from bench.terminal.progress import RunProgress
from bench.tuning.knee import find_knee
from bench.tuning.single_stream import run_single_stream
from bench.tuning.trial import Trial, trial_of

WARMUP_S: Final = 3.0
# No open loop holds above what a closed loop that is always full gets answered; the rest is for the machine's drift.
HEADROOM: Final = 1.1
TOLERANCE: Final = 0.05


class CapacitySearch:
    """One search: a server that is up to the trial, and what a trial needs."""

    def __init__(self, stream: Stream, kind: str, scratch: Path, seconds: float, seed: int) -> None:
        self._stream = stream
        self._kind = kind
        self._scratch = scratch
        self._seconds = seconds
        self._seed = seed

    async def run(self, p99_ms: float, progress: RunProgress) -> list[Trial]:
        """Every trial, each on a server of its own: the backlog of a rate that is too high is nobody's latency."""

        async def measure(rate_per_s: float) -> Trial:
            async with progress.step(f"{rate_per_s:.0f}/s", self._seconds), self._server() as target:
                await self._load(target, rate_per_s=None, seconds=WARMUP_S)
                others = OtherProcesses()
                totals = await self._load(target, rate_per_s=rate_per_s, seconds=self._seconds)
                return trial_of(rate_per_s, totals, others_cores=others.cores())

        async with progress.step("what a closed loop gets", WARMUP_S), self._server() as target:
            try:
                self._stream = await with_accepted_range(target.grpc, self._stream, seed=self._seed)
            except grpc.aio.AioRpcError as error:
                raise TargetError(f"{self._stream.model}: {error.details()}") from error
            await self._load(target, rate_per_s=None, seconds=WARMUP_S)
            full = await self._load(target, rate_per_s=None, seconds=WARMUP_S)
        high_per_s = HEADROOM * STREAM_METRICS["ok_per_s"](full)
        return await find_knee(measure, p99_ms=p99_ms, high_per_s=high_per_s, tolerance=TOLERANCE)

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[Target]:
        models, log = self._scratch / "models", self._scratch / "server.log"
        config = self._scratch / "fairlane.yaml"
        await asyncio.to_thread(config.touch)
        running = fairlane(models, config, log=log) if self._kind == "fairlane" else triton(models, log=log)
        async with running as target:
            yield target

    async def _load(self, target: Target, *, rate_per_s: float | None, seconds: float) -> Totals:
        out = self._scratch / "capacity.json"
        return await run_single_stream(
            target.grpc, self._stream, rate_per_s=rate_per_s, seconds=seconds, seed=self._seed, out=out
        )
