"""What a scenario found, as one record that the table, the verdicts, the report and the JSON read."""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

from bench.load.stream import Stream
from bench.measuring.estimate import Estimate, estimate_metrics
from bench.measuring.machine import Machine
from bench.measuring.pool import PhasePool
from bench.measuring.validity import LATENESS_SHARE_BOUND, SENT_SHARE_BOUND
from bench.scenarios.scenario import Scenario
from bench.scenarios.verdict import Verdict, judge

FORMAT: Final = 2  # of the JSON; changes when a reader has to


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """All phases of all rounds on one machine.

    Attributes:
        name: of the scenario.
        capacity_per_s: what Triton alone answered of each stream's requests before the rounds; NaN where not asked.
        pools: by TARGET.PHASE.
        others_cores: cores that processes of others kept busy, by TARGET.PHASE, one entry a round.
        triton_version: as the server says.
    """

    name: str
    scenario: Scenario
    machine: Machine
    seed: int
    triton_version: str
    capacity_per_s: dict[str, float]
    pools: dict[str, PhasePool]
    others_cores: dict[str, list[float]]

    @cached_property
    def measured(self) -> dict[str, Estimate]:
        """Every metric by its reference."""
        return estimate_metrics(self.pools, seed=self.seed)

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """All claims of the scenario, in order."""
        return judge(self.scenario.verdicts, self.measured)

    @cached_property
    def faults(self) -> list[str]:
        """Why the figures cannot be trusted; empty for a valid run."""
        return self._busy() + [
            f"{cell}.{name}: {fault}"
            for cell, pool in self.pools.items()
            for name in pool.streams
            for fault in self._faults(f"{cell}.{name}", self.scenario.streams[name])
        ]

    @property
    def valid(self) -> bool:
        """Whether the figures mean what they say."""
        return not self.faults

    def value(self, reference: str) -> float:
        """The pooled value of a metric."""
        return self.measured[reference].value

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON; what does not exist is None."""
        facts = {
            "format": FORMAT,
            "scenario": self.name,
            "definition": self.scenario.model_dump(mode="json", by_alias=True),
            "machine": asdict(self.machine),
            "triton_version": self.triton_version,
            "seed": self.seed,
            "capacity_per_s": self.capacity_per_s,
            "valid": self.valid,
            "faults": self.faults,
            "others_cores": self.others_cores,
            "verdicts": [verdict.facts() for verdict in self.verdicts],
            "metrics": {reference: each.facts() for reference, each in self.measured.items()},
            "errors": self._errors(),
        }
        plain: dict[str, Any] = _without_nan(facts)
        return plain

    def _busy(self) -> list[str]:
        """The phase in which others took most of the machine, where that is too much."""
        bound = self.scenario.others_cores_bound
        cell, most = max(((cell, max(cores)) for cell, cores in self.others_cores.items()), key=lambda each: each[1])
        if bound is None or most <= bound:
            return []
        return [f"{cell}: other processes kept {most:.1f} of {self.machine.cores} cores busy, above {bound:g}"]

    def _faults(self, stream: str, asked: Stream) -> list[str]:
        faults = []
        if unsent := self.value(f"{stream}.unsent"):
            faults.append(f"the bound on outstanding requests was hit, {unsent:.0f} were never sent")
        if asked.outstanding is not None:
            return faults
        late_ms, bound_ms = self.value(f"{stream}.lateness_p99_ms"), self._bound_ms(stream, asked)
        if late_ms > bound_ms:
            faults.append(f"the generator fell behind, its p99 lateness {late_ms:.1f} ms is above {bound_ms:.0f} ms")
        sent = self.value(f"{stream}.sent_share")
        if sent < SENT_SHARE_BOUND:
            faults.append(f"only {sent:.0%} of the due requests were sent within the run")
        return faults

    def _bound_ms(self, stream: str, asked: Stream) -> float:
        if asked.lateness_p99_bound_ms is None:
            return math.inf
        p99_ms = self.value(f"{stream}.p99_ms")
        return max(asked.lateness_p99_bound_ms, 0.0 if math.isnan(p99_ms) else LATENESS_SHARE_BOUND * p99_ms)

    def _errors(self) -> dict[str, dict[str, Any]]:
        """Status codes and the first message of every stream in which something did not end well."""
        found: dict[str, dict[str, Any]] = {}
        for cell, pool in self.pools.items():
            for name, stream in pool.streams.items():
                counts: dict[str, int] = {}
                for each in stream.rounds:
                    for code, count in each.errors.items():
                        counts[code] = counts.get(code, 0) + count
                if counts:
                    first = next(each.first_error for each in stream.rounds if each.first_error)
                    found[f"{cell}.{name}"] = {"codes": counts, "first": first}
        return found


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
