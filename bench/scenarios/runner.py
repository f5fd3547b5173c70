"""Runs a scenario: rounds of short visits to every target, so that a drift of the machine hits all of them alike.

A machine of today changes its speed by tens of percent within minutes. Measured one after the other, two servers
differ by that alone; visited in turn, several times, in an order that rotates, the drift lies within the spread that
is reported.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc.aio
import yaml
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.load.generator_process import run_jobs
from bench.load.job import Job
from bench.load.loops import SATURATING_OUTSTANDING
from bench.load.stream import Shape, Stream
from bench.measuring.batch_statistics import BatchStatistics, fetch_batch_statistics
from bench.measuring.machine import Machine
from bench.measuring.metric import STREAM_METRICS
from bench.measuring.other_processes import OtherProcesses
from bench.measuring.pool import PhasePool, StreamPool
from bench.measuring.process_watch import ProcessUsage, ProcessWatch
from bench.recording.recording import Recording
from bench.scenarios.result import Result
from bench.scenarios.scenario import Scenario
from bench.targets.fairlane import fairlane
from bench.targets.kind import TargetKind
from bench.targets.model_repository import add_priority_levels, copy_model
from bench.targets.nginx import nginx
from bench.targets.proxy import proxy
from bench.targets.target import Target
from bench.targets.triton import triton
from bench.terminal.progress import RunProgress

PHASE_S: Final = 2.0  # what generators take to start, connect and wait for late answers, for the countdown only
START_S: Final = 3.0  # what a fresh server takes, for the countdown only
SETTLE_S: Final = 0.5  # between two loads on one server: the last batches of the first end
CALIBRATION_S: Final = 6.0  # answers come a batch at a time: 32 of 1,500 are the error
CALIBRATION: Final = "calibration"
# Rounds have arrivals of their own; targets of one round have the same.
SEED_STEP: Final = 1000


class CalibrationError(RuntimeError):
    """The server answered nothing while its capacity was measured."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run a scenario.

    Attributes:
        seed: of arrivals, request values and the bootstrap.
        out: folder of everything written.
        model_repository: where the built models are.
    """

    seed: int
    out: Path
    model_repository: Path


@dataclass
class Measurements:
    """What came back so far: by target and phase, one entry a round; `others` by TARGET.PHASE, in cores."""

    recordings: dict[tuple[TargetKind, str], list[dict[str, Recording]]] = field(default_factory=dict)
    hops: dict[tuple[TargetKind, str], list[ProcessUsage | None]] = field(default_factory=dict)
    batches: dict[tuple[TargetKind, str], list[dict[str, BatchStatistics]]] = field(default_factory=dict)
    others: dict[str, list[float]] = field(default_factory=dict)


class Runner:
    """One execution of a scenario."""

    def __init__(self, scenario: Scenario, settings: Settings, progress: RunProgress, scratch: Path) -> None:
        self._scenario = scenario
        self._settings = settings
        self._progress = progress
        self._plain, self._priorities = scratch / "plain", scratch / "priorities"
        for model in scenario.models:
            copy_model(settings.model_repository, model, self._plain)
            copy_model(settings.model_repository, model, self._priorities)
            add_priority_levels(self._priorities, model, len(scenario.classes))
        self._config = scratch / "fairlane.yaml"
        self._config.write_text(yaml.safe_dump(scenario.fairlane))
        self._capacity_per_s: dict[Shape, float] = {}
        self._triton_version = "unknown"
        self._measurements = Measurements()

    async def run(self, name: str) -> Result:
        """Calibration, then every round.

        Raises:
            TargetError: a server did not start.
            GeneratorError: a generator failed.
            CalibrationError: Triton answered nothing.
        """
        await self._calibrate()
        for number in range(self._scenario.rounds):
            for target in self._order(number):
                await self._visit(target, number)
        return Result(
            name=name,
            scenario=self._scenario,
            machine=Machine.here(),
            seed=self._settings.seed,
            triton_version=self._triton_version,
            capacity_per_s={stream: self._capacity_of(each) for stream, each in self._scenario.streams.items()},
            pools=self._pools(),
            others_cores=self._measurements.others,
        )

    def _order(self, number: int) -> list[TargetKind]:
        """Rotated from round to round: no target is always first, or always after the same one's heat."""
        targets = self._scenario.targets
        return [*targets[number % len(targets) :], *targets[: number % len(targets)]]

    async def _calibrate(self) -> None:
        """What Triton alone answers, of each kind of request that a multiple of the capacity is asked of."""
        streams = {each.shape: each for each in self._scenario.streams.values() if each.of_capacity is not None}
        log = self._settings.out / "calibration.log"
        async with triton(self._plain, log=log) as target:
            self._triton_version = await _server_version(target)
            for place, (shape, stream) in enumerate(streams.items()):
                async with self._progress.step(f"capacity of Triton for {shape.model}", CALIBRATION_S):
                    job = self._saturating(target, stream, CALIBRATION_S, f"{CALIBRATION}-{place}")
                    recording = (await run_jobs([job]))[job.name]
                pool = StreamPool([recording], float("nan"))
                ok_per_s = STREAM_METRICS["ok_per_s"](pool.totals(pool.everything))
                if not ok_per_s or recording.errors:
                    raise CalibrationError(f"Triton failed in a closed loop: {recording.first_error or 'no answer'}")
                self._capacity_per_s[shape] = ok_per_s

    async def _visit(self, target: TargetKind, number: int) -> None:
        """All phases of one target in one round, on as few servers as their backlogs allow."""
        async with AsyncExitStack() as stack:
            server: Target | None = None
            for phase in self._scenario.phases_on(target):
                if server is None or self._scenario.phases[phase].fresh:
                    await stack.aclose()
                    server = await stack.enter_async_context(self._fresh(target, number, phase))
                await self._run_phase(server, target, phase, number)

    async def _run_phase(self, server: Target, target: TargetKind, phase: str, number: int) -> None:
        seconds = self._scenario.phases[phase].seconds
        out = self._settings.out / f"round-{number + 1}" / target / phase
        jobs = [self._job(server, name, target, phase, number, out) for name in self._scenario.phases[phase].streams]
        title = f"round {number + 1} of {self._scenario.rounds}: {target}, {phase}"
        before = await fetch_batch_statistics(server.grpc, self._scenario.models)
        others = OtherProcesses()
        async with self._progress.step(title, seconds + PHASE_S), AsyncExitStack() as stack:
            watch = None
            if server.hop_pid is not None:
                watch = await stack.enter_async_context(ProcessWatch(server.hop_pid))
            recordings = await run_jobs(jobs)
        after = await fetch_batch_statistics(server.grpc, self._scenario.models)
        batches = {model: after[model].since(before[model]) for model in after}
        self._measurements.batches.setdefault((target, phase), []).append(batches)
        self._measurements.others.setdefault(f"{target}.{phase}", []).append(others.cores())
        self._measurements.recordings.setdefault((target, phase), []).append(recordings)
        self._measurements.hops.setdefault((target, phase), []).append(None if watch is None else watch.usage)
        await asyncio.sleep(SETTLE_S)

    @asynccontextmanager
    async def _fresh(self, target: TargetKind, number: int, phase: str) -> AsyncIterator[Target]:
        """A server started for this visit and warmed: every batch size has been run once, and the queue is empty."""
        log = self._settings.out / f"round-{number + 1}" / f"{target}-{phase}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            shapes = {each.shape: each for each in self._scenario.streams.values()}
            async with self._progress.step(f"starting {target}", START_S + len(shapes) * self._scenario.warmup_s):
                server = await stack.enter_async_context(self._server(target, log))
                for stream in shapes.values() if self._scenario.warmup_s else ():
                    await run_jobs([self._saturating(server, stream, self._scenario.warmup_s, "warm-up")])
                    await asyncio.sleep(SETTLE_S)
            yield server

    def _server(self, target: TargetKind, log: Path) -> AbstractAsyncContextManager[Target]:
        if target is TargetKind.FAIRLANE:
            return fairlane(self._plain, self._config, log=log)
        if target is TargetKind.PRIORITIES:
            return triton(self._priorities, log=log)
        return {TargetKind.TRITON: triton, TargetKind.PROXY: proxy, TargetKind.NGINX: nginx}[target](
            self._plain, log=log
        )

    def _job(self, server: Target, name: str, target: TargetKind, phase: str, number: int, out: Path) -> Job:
        stream = self._scenario.streams[name]
        classes = self._scenario.classes
        return Job(
            target=server.grpc,
            name=name,
            stream=stream,
            rate_per_s=stream.rate_per_s or (stream.of_capacity or 0.0) * self._capacity_per_s.get(stream.shape, 0.0),
            duration_s=self._scenario.phases[phase].seconds,
            seed=self._settings.seed + SEED_STEP * number,
            triton_priority=classes.index(stream.traffic_class) + 1 if target is TargetKind.PRIORITIES else None,
            out=out / f"{name}.json",
        )

    def _saturating(self, server: Target, stream: Stream, duration_s: float, name: str) -> Job:
        """A closed loop of a stream's requests: warms a server, and measures its capacity."""
        load = {
            "outstanding": SATURATING_OUTSTANDING,
            "rate_per_s": None,
            "of_capacity": None,
            "deadline_ms": None,
            "mix": None,
        }
        return Job(
            target=server.grpc,
            name=name,
            stream=stream.model_copy(update=load),
            rate_per_s=0.0,
            duration_s=duration_s,
            seed=self._settings.seed,
            triton_priority=None,
            out=self._settings.out / f"{name}.json",
        )

    def _capacity_of(self, stream: Stream) -> float:
        return self._capacity_per_s.get(stream.shape, float("nan"))

    def _pools(self) -> dict[str, PhasePool]:
        pools = {}
        for target in self._scenario.targets:
            for phase in self._scenario.phases_on(target):
                streams = {name: self._pool(target, phase, name) for name in self._scenario.phases[phase].streams}
                pools[f"{target}.{phase}"] = PhasePool(streams, self._measurements.hops[target, phase])
        return pools

    def _pool(self, target: TargetKind, phase: str, name: str) -> StreamPool:
        stream, key = self._scenario.streams[name], (target, phase)
        recordings = [each[name] for each in self._measurements.recordings[key]]
        batches = [each[stream.model] for each in self._measurements.batches[key]]
        return StreamPool(recordings, self._capacity_of(stream), batches)


def expected_s(scenario: Scenario) -> float:
    """About how long a scenario takes."""
    shapes = {each.shape for each in scenario.streams.values()}
    fresh_s = START_S + len(shapes) * scenario.warmup_s
    round_s = sum(
        phase.seconds + PHASE_S + (fresh_s if phase.fresh or name == scenario.phases_on(target)[0] else 0.0)
        for target in scenario.targets
        for name, phase in ((name, scenario.phases[name]) for name in scenario.phases_on(target))
    )
    calibrated = {each.shape for each in scenario.streams.values() if each.of_capacity is not None}
    return len(calibrated) * CALIBRATION_S + scenario.rounds * round_s


async def run_scenario(name: str, scenario: Scenario, settings: Settings, progress: RunProgress) -> Result:
    """Run a scenario; see `Runner.run`.

    Raises:
        FileNotFoundError: a model is not built.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as scratch:
        return await Runner(scenario, settings, progress, Path(scratch)).run(name)


async def _server_version(target: Target) -> str:
    async with grpc.aio.insecure_channel(target.grpc) as channel:
        stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return str((await stub.ServerMetadata(service_pb2.ServerMetadataRequest(), timeout=10)).version)
