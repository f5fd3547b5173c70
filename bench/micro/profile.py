"""Where the core's time goes, function by function (cProfile's own cost is in it: look at the parts, not the sums)."""

import cProfile
import pstats
from dataclasses import dataclass
from pathlib import Path

from bench.micro.cost import Loaded


@dataclass(frozen=True, slots=True)
class Spent:
    """A function's own part of the profiled time, and its calls a ticket."""

    function: str
    part: float
    calls: float


def profile(queued: int, tenants: int, *, tickets: int, most: int) -> list[Spent]:
    """The dearest functions, dearest first."""
    loaded = Loaded(queued, tenants)
    for _ in range(50):
        loaded.advance()
    profiler = cProfile.Profile()
    passed = 0
    profiler.enable()
    while passed < tickets:
        passed += loaded.advance()
    profiler.disable()
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined] # typeshed leaves it out
    all_s = sum(own_s for _, _, own_s, _, _ in stats.values())
    found = [
        Spent(f"{Path(file).stem}.{name}" if file != "~" else name, own_s / all_s, calls / passed)
        for (file, _, name), (_, calls, own_s, _, _) in stats.items()
    ]
    return sorted(found, key=lambda spent: -spent.part)[:most]
