"""Each kind of request, directly at Triton and through Fairlane, in turn on one server."""

import asyncio
import re
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import yaml

from bench.kinds.callers import Callers, LoadResult
from bench.kinds.kind import Kind, make_repository
from bench.targets.fairlane import fairlane
from bench.targets.network import network
from bench.targets.target import TargetError
from bench.targets.triton import triton
from bench.terminal.progress import RunProgress

CALLERS: Final = 32
PERSON_PER_S: Final = 10.0
# The person's sequences are not the flood's.
PERSON_CALLER: Final = 1_000
# What a model of slow answers can do is found out within it.
WARMUP_S: Final = 8.0
# Before a short look there is a short warm-up.
WARMUP_PART: Final = 2.0
# What waits of a flood is answered by then.
SETTLE_S: Final = 2.0
# What a fresh server takes, for the countdown only.
START_S: Final = 8.0
ASKED_RATE, ASKED_P99 = 0.9, 3.0
# As a team would have it: a person's class that minds waiting, and one for the rest.
CONFIG: Final = {
    "classes": [
        {"name": "interactive", "weight": 16, "wait_ms": 22, "max_queued": 1024},
        {"name": "background", "weight": 1},
    ]
}
EMBEDDED: Final = re.compile(r"embedded Triton on ([0-9.:]+)")


@dataclass
class KindResult:
    """What was measured of one kind.

    Attributes:
        direct: answers a second at Triton, one for each round.
        background: the same through Fairlane as background, with nobody else there.
        interactive: the same as interactive.
        alone_ms: latencies of a person alone, through Fairlane.
        flooded_ms: the same beside a background flood of the kind.
        errors: what ended otherwise, over all.
    """

    kind: Kind
    direct: list[float] = field(default_factory=list)
    background: list[float] = field(default_factory=list)
    interactive: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)
    flooded_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def ratio(self, of: list[float]) -> float:
        """Median over the rounds of the rate to Triton's in the same round."""
        return statistics.median(ours / direct if direct else 0.0 for ours, direct in zip(of, self.direct, strict=True))

    @property
    def p99_ratio(self) -> float:
        """The person's p99 beside the flood, to the one alone."""
        return float(np.percentile(self.flooded_ms, 99) / np.percentile(self.alone_ms, 99))

    @property
    def passed(self) -> bool:
        """Whether everything asked holds."""
        rates = min(self.ratio(self.background), self.ratio(self.interactive))
        return rates >= ASKED_RATE and self.p99_ratio <= ASKED_P99 and not self.errors

    def facts(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "kind": self.kind.name,
            "direct_per_s": self.direct,
            "background_per_s": self.background,
            "interactive_per_s": self.interactive,
            "background_to_direct": self.ratio(self.background),
            "interactive_to_direct": self.ratio(self.interactive),
            "alone_p99_ms": float(np.percentile(self.alone_ms, 99)),
            "flooded_p99_ms": float(np.percentile(self.flooded_ms, 99)),
            "p99_flooded_to_alone": self.p99_ratio,
            "errors": self.errors,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Plan:
    """How long everything takes: `seconds` each of three rates, and twice as long for a person, so many `rounds`."""

    kinds: tuple[Kind, ...]
    seconds: float
    rounds: int

    @property
    def warmup_s(self) -> float:
        """Load before each measurement of a rate that is not counted."""
        return min(WARMUP_S, WARMUP_PART * self.seconds)

    @property
    def total_s(self) -> float:
        """About how long the run takes."""
        return len(self.kinds) * self.rounds * (7 * self.seconds + 3 * self.warmup_s + 2 * SETTLE_S + START_S)


async def measure(plan: Plan, scratch: Path, progress: RunProgress) -> list[KindResult]:
    """Measure the kinds, one after the other, on a fresh server each.

    Raises:
        TargetError: the server did not start.
    """
    repository = make_repository(scratch / "repository")
    config, log = scratch / "fairlane.yaml", scratch / "serve.log"
    config.write_text(yaml.safe_dump(CONFIG))
    found = []
    for kind in plan.kinds:
        one = KindResult(kind)
        for number in range(plan.rounds):
            async with _servers(kind, repository, config, log) as (ours, triton_address):
                title = f"{kind.name}, round {number + 1} of {plan.rounds}"
                async with progress.step(title, plan.total_s / len(plan.kinds) / plan.rounds):
                    await _round(one, plan, ours, triton_address, number)
        found.append(one)
    return found


@asynccontextmanager
async def _servers(kind: Kind, repository: Path, config: Path, log: Path) -> AsyncIterator[tuple[str, str]]:
    """Fairlane and the Triton behind it: the address of each, the latter beyond the network where there is one."""
    async with AsyncExitStack() as stack:
        if not kind.round_trip_s:
            target = await stack.enter_async_context(fairlane(repository, config, log=log))
            yield target.grpc, _embedded(log)
            return
        behind = await stack.enter_async_context(triton(repository, log=log.with_suffix(".triton.log")))
        relay_log = log.with_suffix(".network.log")
        far = await stack.enter_async_context(network(behind.grpc, kind.round_trip_s, log=relay_log))
        far_config = config.with_suffix(".far.yaml")
        far_config.write_text(yaml.safe_dump(CONFIG | {"backends": [{"name": "far", "grpc": far}]}))
        target = await stack.enter_async_context(fairlane(repository, far_config, log=log))
        yield target.grpc, far


def _embedded(log: Path) -> str:
    """Address of the Triton that the ready line names."""
    told = log.read_text()
    if (found := EMBEDDED.search(told)) is None:
        raise TargetError(f"the ready line names no embedded Triton:\n{told[-500:]}")
    return found[1]


async def _round(one: KindResult, plan: Plan, ours: str, triton: str, number: int) -> None:
    base = 0
    for address, traffic_class, rates in (
        (triton, None, one.direct),
        (ours, "background", one.background),
        (ours, "interactive", one.interactive),
    ):
        base += CALLERS
        callers = await Callers(one.kind, traffic_class, base).connect(address)
        await callers.closed_loop(CALLERS, plan.warmup_s)
        outcome = await callers.closed_loop(CALLERS, plan.seconds)
        await callers.close()
        rates.append(outcome.per_s)
        _note(one, outcome)
    await _person(one, plan, ours, number)


async def _person(one: KindResult, plan: Plan, ours: str, number: int) -> None:
    """A person's latency alone, and beside a background flood of the same kind."""
    person = await Callers(one.kind, "interactive", PERSON_CALLER).connect(ours)
    await asyncio.sleep(SETTLE_S)
    alone = await person.paced(PERSON_PER_S, 2 * plan.seconds, seed=number)
    flood = await Callers(one.kind, "background", 5 * CALLERS).connect(ours)
    flooding = asyncio.ensure_future(flood.closed_loop(CALLERS, 2 * plan.seconds + SETTLE_S))
    await asyncio.sleep(SETTLE_S)
    again = await Callers(one.kind, "interactive", 2 * PERSON_CALLER).connect(ours)
    flooded = await again.paced(PERSON_PER_S, 2 * plan.seconds, seed=number)
    for outcome in (alone, flooded, await flooding):
        _note(one, outcome)
    one.alone_ms += alone.latencies_ms
    one.flooded_ms += flooded.latencies_ms
    for callers in (person, flood, again):
        await callers.close()


def _note(one: KindResult, outcome: LoadResult) -> None:
    for error, count in outcome.errors.items():
        one.errors[error] = one.errors.get(error, 0) + count
