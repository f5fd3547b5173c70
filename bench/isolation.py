"""The isolation scenario: what a background flood does to interactive latency, on three servers in turn."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc.aio
from tritonclient.grpc import service_pb2

from bench.load import run_streams
from bench.machine import Machine
from bench.plan import CAPACITY_FILL_S, CAPACITY_S, FLOOD_FACTOR, MODEL, PHASES, Kind, Phase, Plan, saturating, streams
from bench.process_watch import ProcessWatch
from bench.progress import PhaseProgress
from bench.repository import add_priority_levels, copy_model
from bench.result import Result, Run
from bench.sender import SERVICE
from bench.summary import steady_ok_per_s
from bench.target import Target, fairlane, triton

START_S: Final = 4.0  # what a fresh server takes, for the countdown only
SETTLE_S: Final = 0.5  # between warm-up and run: the warm-up's last batches end


class CapacityError(RuntimeError):
    """The server answered nothing while its capacity was measured."""


class Isolation:
    """One execution of the scenario."""

    def __init__(self, plan: Plan, progress: PhaseProgress, scratch: Path) -> None:
        self._plan = plan
        self._progress = progress
        self._plain = copy_model(plan.model_repository, MODEL, scratch / "plain")
        self._priorities = copy_model(plan.model_repository, MODEL, scratch / "priorities")
        add_priority_levels(self._priorities, MODEL)

    async def run(self) -> Result:
        """Capacity, all phases, capacity again.

        Raises:
            TargetError: a server did not start.
            GeneratorError: a generator failed.
            CapacityError: Triton answered nothing.
        """
        version, before = await self._capacity("before")
        runs = {phase.name: await self._phase(phase, FLOOD_FACTOR * before) for phase in PHASES}
        _, after = await self._capacity("after")
        return Result(
            machine=Machine.here(),
            seed=self._plan.seed,
            capacity_per_s=(before, after),
            flood_per_s=FLOOD_FACTOR * before,
            runs=runs,
            triton_version=version,
        )

    async def _capacity(self, when: str) -> tuple[str, float]:
        """Triton's version, and the requests per second it answers in a closed loop."""
        name = f"capacity-{when}"
        shown_s = START_S + self._plan.warmup_s + CAPACITY_S
        async with (
            self._progress.phase(f"Triton's capacity, {when}", shown_s),
            self._fresh(Kind.TRITON, name) as target,
        ):
            load = [saturating(CAPACITY_S)]
            samples = await run_streams(target.grpc, load, seed=self._plan.seed, out=self._plan.out / name)
            capacity = samples["capacity"]
            ok_per_s = steady_ok_per_s(capacity, CAPACITY_FILL_S)
            if not ok_per_s or capacity.errors:
                raise CapacityError(f"Triton failed in a closed loop: {capacity.errors} {capacity.first_error}")
            return await _server_version(target), ok_per_s

    async def _phase(self, phase: Phase, flood_per_s: float) -> Run:
        duration_s = self._plan.duration_s(phase)
        title = ", ".join(phase.title)
        async with self._progress.phase(title, START_S + self._plan.warmup_s + duration_s), AsyncExitStack() as stack:
            target = await stack.enter_async_context(self._fresh(phase.kind, phase.name))
            watch = None
            if target.scheduler_pid is not None:
                watch = await stack.enter_async_context(ProcessWatch(target.scheduler_pid))
            load = streams(phase, duration_s, flood_per_s)
            samples = await run_streams(target.grpc, load, seed=self._plan.seed, out=self._plan.out / phase.name)
            return Run(phase=phase, samples=samples, scheduler=None if watch is None else watch.usage)

    @asynccontextmanager
    async def _fresh(self, kind: Kind, name: str) -> AsyncIterator[Target]:
        """A server started for this phase and warmed: every batch size has been run once, and the queue is empty."""
        async with self._server(kind, self._plan.out / f"{name}.log") as target:
            if self._plan.warmup_s > 0:
                load = [saturating(self._plan.warmup_s)]
                out = self._plan.out / name / "warmup"
                await run_streams(target.grpc, load, seed=self._plan.seed, out=out)
                await asyncio.sleep(SETTLE_S)
            yield target

    def _server(self, kind: Kind, log: Path) -> AbstractAsyncContextManager[Target]:
        if kind is Kind.FAIRLANE:
            return fairlane(self._plain, self._plan.config, log=log)
        return triton(self._plain if kind is Kind.TRITON else self._priorities, log=log)


async def run_isolation(plan: Plan, progress: PhaseProgress) -> Result:
    """Run the scenario as planned; see `Isolation.run`."""
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as scratch:
        return await Isolation(plan, progress, Path(scratch)).run()


async def _server_version(target: Target) -> str:
    async with grpc.aio.insecure_channel(target.grpc) as channel:
        ask: Any = channel.unary_unary(
            f"{SERVICE}/ServerMetadata",
            request_serializer=service_pb2.ServerMetadataRequest.SerializeToString,
            response_deserializer=service_pb2.ServerMetadataResponse.FromString,
        )
        return str((await ask(service_pb2.ServerMetadataRequest(), timeout=10)).version)
