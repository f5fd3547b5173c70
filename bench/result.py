"""What the isolation scenario found, as one record that the table, the plot, the verdicts and the JSON read."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from bench.machine import Machine
from bench.plan import BACKGROUND, INTERACTIVE, Phase
from bench.process_watch import ProcessUsage
from bench.samples import Samples
from bench.summary import LATENESS_P99_BOUND_MS, StreamSummary, load_faults, summarize

# Twice what the capacity's own error explains: beyond it something else used the machine, or its clock changed.
CAPACITY_DRIFT_BOUND: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One phase as measured.

    Attributes:
        phase: what was run.
        samples: of each stream, by name.
        scheduler: memory and CPU of the scheduler process; None without a scheduler.
    """

    phase: Phase
    samples: dict[str, Samples]
    scheduler: ProcessUsage | None

    @property
    def interactive(self) -> StreamSummary:
        """Numbers of the interactive stream."""
        return summarize(self.samples[INTERACTIVE])

    @property
    def background(self) -> StreamSummary | None:
        """Numbers of the flood; None where there was none."""
        samples = self.samples.get(BACKGROUND)
        return None if samples is None else summarize(samples)

    @property
    def total_ok_per_s(self) -> float:
        """Requests answered per second of the run, both streams."""
        return sum(summarize(samples).ok_per_s for samples in self.samples.values())

    @property
    def scheduler_cpu_us_per_request(self) -> float:
        """CPU time of the scheduler per request that came, refused ones too; NaN without a scheduler."""
        if self.scheduler is None:
            return math.nan
        return self.scheduler.cpu_s / max(1, sum(len(one.due_s) for one in self.samples.values())) * 1e6

    def faults(self) -> list[str]:
        """Why the load of this run was not the one asked for; empty for a valid run."""
        name = self.phase.name
        faults = load_faults(f"{name}, interactive", self.interactive, lateness_p99_bound_ms=LATENESS_P99_BOUND_MS)
        if self.background is not None:
            faults += load_faults(f"{name}, background", self.background, lateness_p99_bound_ms=None)
        return faults

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "duration_s": self.samples[INTERACTIVE].duration_s,
            "streams": {name: asdict(summarize(samples)) for name, samples in self.samples.items()},
            "total_ok_per_s": self.total_ok_per_s,
            "scheduler": None if self.scheduler is None else asdict(self.scheduler),
            "scheduler_cpu_us_per_request": self.scheduler_cpu_us_per_request,
            "faults": self.faults(),
        }


@dataclass(frozen=True, kw_only=True)
class Result:
    """All phases of one command on one machine.

    Attributes:
        capacity_per_s: what Triton alone answered in a closed loop, before the first phase and after the last.
        flood_per_s: rate of the flood that was asked for, from the capacity before.
        runs: by phase name.
        triton_version: as the server says.
    """

    machine: Machine
    seed: int
    capacity_per_s: tuple[float, float]
    flood_per_s: float
    runs: dict[str, Run]
    triton_version: str

    @property
    def reference_per_s(self) -> float:
        """Triton's capacity: the mean of before and after, so that a drift of the machine cancels to first order."""
        return sum(self.capacity_per_s) / 2

    def faults(self) -> list[str]:
        """Why these runs cannot be held against each other; empty for a valid result."""
        faults = [fault for run in self.runs.values() for fault in run.faults()]
        before, after = self.capacity_per_s
        if abs(after - before) > CAPACITY_DRIFT_BOUND * self.reference_per_s:
            faults.append(f"the machine changed: Triton's capacity was {before:.0f}/s before and {after:.0f}/s after")
        return faults

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        facts = {
            "scenario": "isolation",
            "machine": asdict(self.machine),
            "triton_version": self.triton_version,
            "seed": self.seed,
            "capacity_per_s": {"before": self.capacity_per_s[0], "after": self.capacity_per_s[1]},
            "reference_per_s": self.reference_per_s,
            "flood_per_s": self.flood_per_s,
            "faults": self.faults(),
            "lateness_p99_bound_ms": LATENESS_P99_BOUND_MS,
            "phases": {name: run.facts() for name, run in self.runs.items()},
        }
        plain: dict[str, Any] = _without_nan(facts)
        return plain


def write_json(facts: dict[str, Any], path: Path) -> None:
    """Write facts as indented JSON."""
    path.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
