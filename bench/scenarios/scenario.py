"""Scenario files: what load, on which targets, in which order, and what is claimed of the outcome."""

from pathlib import Path
from typing import Any, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.load.stream import Name, Stream
from bench.measuring.metric import PHASE_METRICS, STREAM_METRICS
from bench.measuring.validity import OTHERS_CORES_BOUND
from bench.targets.kind import TargetKind
from scheduler.config import Config

BUILT_IN: Final = Path(__file__).parent


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message names the file and the path of every error."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phase(_Strict):
    """Streams that run together for a while."""

    streams: list[Name] = Field(min_length=1, description="Names of streams.")
    seconds: float = Field(gt=0, description="Length; latencies of a second make one row of the statistics.")
    targets: list[TargetKind] | None = Field(
        default=None, description="Only on these; all of the scenario's where not set."
    )
    fresh: bool = Field(default=False, description="Restart the server before: the phase before leaves a backlog.")


class Claim(_Strict):
    """A verdict: a number, its ratio to another or its difference from another, against a bound."""

    claim: str = Field(description="The sentence that is to hold, with its bound.")
    value: str = Field(description="Reference of a metric: TARGET.PHASE.STREAM.METRIC or TARGET.PHASE.METRIC.")
    over: str | None = Field(default=None, description="Divide by this metric.")
    minus: str | None = Field(default=None, description="Subtract this metric.")
    at_most: float | None = Field(default=None, description="Upper bound.")
    at_least: float | None = Field(default=None, description="Lower bound.")

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("set exactly one of at_most and at_least")
        if self.over is not None and self.minus is not None:
            raise ValueError("set at most one of over and minus")
        return self

    @property
    def references(self) -> list[str]:
        """The metrics it names."""
        return [each for each in (self.value, self.over, self.minus) if each is not None]


class Scenario(_Strict):
    """One load test. Every round visits every target; on each, a fresh server runs the phases in their order."""

    title: str = Field(description="One line above the table.")
    rounds: int = Field(default=3, gt=0, description="How often every target is visited.")
    warmup_s: float = Field(default=2.0, ge=0, description="Unmeasured closed-loop load on each fresh server.")
    others_cores_bound: float | None = Field(
        default=OTHERS_CORES_BOUND, ge=0, description="The run is invalid where other processes took more; none: ever."
    )
    targets: list[TargetKind] = Field(min_length=1, description="In the order of the table.")
    streams: dict[Name, Stream] = Field(min_length=1, description="By name.")
    phases: dict[Name, Phase] = Field(min_length=1, description="By name, in order.")
    fairlane: dict[str, Any] = Field(default={}, description="Fairlane's configuration, as in fairlane.yaml.")
    verdicts: dict[Name, Claim] = Field(default={}, description="By name.")

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        for name, phase in self.phases.items():
            if unknown := [each for each in phase.streams if each not in self.streams]:
                raise ValueError(f"phases.{name}.streams: no stream is named {unknown[0]!r}")
            if unknown := [each for each in phase.targets or [] if each not in self.targets]:
                raise ValueError(f"phases.{name}.targets: {str(unknown[0])!r} is not among the targets")
        for name, claim in self.verdicts.items():
            for reference in claim.references:
                self._check(f"verdicts.{name}", reference)
        return self

    def _check(self, where: str, reference: str) -> None:
        target, _, rest = reference.partition(".")
        phase, _, metric = rest.partition(".")
        if phase not in self.phases or target not in self.targets_of(phase):
            raise ValueError(f"{where}: {reference!r} does not begin with a TARGET.PHASE that runs")
        known = [f"{stream}.{name}" for stream in self.phases[phase].streams for name in STREAM_METRICS]
        if metric not in (*known, *PHASE_METRICS):
            raise ValueError(f"{where}: {reference!r} names no metric of that phase")

    def targets_of(self, phase: str) -> list[TargetKind]:
        """Where a phase runs."""
        return self.phases[phase].targets or self.targets

    def phases_on(self, target: TargetKind) -> list[str]:
        """The phases of one target, in order."""
        return [name for name in self.phases if target in self.targets_of(name)]

    @property
    def models(self) -> list[str]:
        """Names of the models that any stream uses."""
        return sorted({stream.model for stream in self.streams.values()})

    @property
    def classes(self) -> list[str]:
        """Fairlane's classes, the most important first; on Triton they become priority levels."""
        return [entry.name for entry in Config.model_validate(self.fairlane).classes]

    def without(self, target: TargetKind) -> "Scenario":
        """The scenario without a target that cannot run here, and without the verdicts that need it."""
        kept = {name: [each for each in self.targets_of(name) if each != target] for name in self.phases}
        phases = {
            name: phase.model_copy(update={"targets": kept[name]}) for name, phase in self.phases.items() if kept[name]
        }
        verdicts = {
            name: claim
            for name, claim in self.verdicts.items()
            if not any(reference.split(".")[0] == target for reference in claim.references)
        }
        targets = [each for each in self.targets if each != target]
        return self.model_copy(update={"targets": targets, "phases": phases, "verdicts": verdicts})


def load_scenario(name: str) -> tuple[str, Scenario]:
    """A built-in scenario by name, or a file by path; with the name for its output.

    Raises:
        ScenarioError: no such scenario, or what is wrong in it, each error with its path.
    """
    path = BUILT_IN / f"{name}.yaml" if name in built_in() else Path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(built_in())
        raise ScenarioError(f"no scenario {name!r}: expected a file or one of {known}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None
    return path.stem, parse(content, path)


def parse(content: Any, path: Path) -> Scenario:
    """A scenario from the content of its file.

    Raises:
        ScenarioError: see `load_scenario`.
    """
    try:
        scenario = Scenario.model_validate(content)
    except ValidationError as error:
        raise ScenarioError(_readable(path, error, ())) from None
    try:
        Config.model_validate(scenario.fairlane)
    except ValidationError as error:
        raise ScenarioError(_readable(path, error, ("fairlane",))) from None
    return scenario


def built_in() -> list[str]:
    """Names of the scenarios that come with Fairlane."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def _readable(path: Path, error: ValidationError, prefix: tuple[str, ...]) -> str:
    lines = []
    for detail in error.errors():
        where = ".".join(str(part) for part in (*prefix, *detail["loc"]))
        given = "" if isinstance(detail["input"], dict | list) else f", got {detail['input']!r}"
        # What concerns several keys is found by the whole scenario, and names its path itself.
        lines.append(f"  {where}{': ' if where else ''}{detail['msg'].removeprefix('Value error, ')}{given}")
    return f"{path}: {len(lines)} error(s)\n" + "\n".join(lines)
