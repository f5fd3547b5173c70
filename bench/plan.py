"""What the isolation scenario runs: its phases, their streams and their lengths."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bench.stream import Stream

MODEL: Final = "minilm"
SEQ: Final = 32
INTERACTIVE: Final = "interactive"
BACKGROUND: Final = "background"
INTERACTIVE_PER_S: Final = 20.0
FLOOD_FACTOR: Final = 2.0  # the flood, as a multiple of what Triton alone can answer

CAPACITY_OUTSTANDING: Final = 64  # enough to keep every instance busy with full batches
CAPACITY_S: Final = 9.0  # answers come a batch at a time: 32 of 2,000 are the error
CAPACITY_FILL_S: Final = 1.0  # not counted: until the first batches are back


class Kind(StrEnum):
    """Which server a phase measures."""

    TRITON = "triton"
    PRIORITIES = "triton-priorities"
    FAIRLANE = "fairlane"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One server, one load.

    Attributes:
        name: used for files and JSON.
        title: two short lines for the table and one for the plot.
        share: length as a part of the plan's seconds.
    """

    name: str
    title: tuple[str, str]
    kind: Kind
    flooded: bool
    share: float


# Triton's queue under a flood grows without bound, so a longer run only draws the same line further up.
PHASES: Final = (
    Phase(name="triton-alone", title=("Triton", "alone"), kind=Kind.TRITON, flooded=False, share=0.5),
    Phase(name="fairlane-alone", title=("Fairlane", "alone"), kind=Kind.FAIRLANE, flooded=False, share=1.0),
    Phase(name="triton-flood", title=("Triton", "flooded"), kind=Kind.TRITON, flooded=True, share=0.3),
    Phase(
        name="priorities-flood", title=("Triton priority_levels", "flooded"),
        kind=Kind.PRIORITIES, flooded=True, share=0.5,
    ),
    Phase(name="fairlane-flood", title=("Fairlane", "flooded"), kind=Kind.FAIRLANE, flooded=True, share=1.0),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The scenario's settings.

    Attributes:
        seconds: length of a Fairlane phase; 40 s at 20/s are 800 samples, so 8 of them lie above the p99.
        warmup_s: closed-loop load before each run, on the same fresh server, not measured.
        seed: of arrivals and request values.
        out: folder of everything written.
        model_repository: where the built model is.
        config: Fairlane's configuration file.
    """

    seconds: float
    warmup_s: float
    seed: int
    out: Path
    model_repository: Path
    config: Path

    def duration_s(self, phase: Phase) -> float:
        """Length of a phase's measured run."""
        return self.seconds * phase.share


def saturating(duration_s: float) -> Stream:
    """Closed-loop background load: warms a server, and measures its capacity."""
    return _background("capacity", duration_s, outstanding=CAPACITY_OUTSTANDING)


def streams(phase: Phase, duration_s: float, flood_per_s: float) -> list[Stream]:
    """The streams of a phase; with the flood where the phase has one."""
    with_priority = phase.kind is Kind.PRIORITIES
    interactive = Stream(
        name=INTERACTIVE,
        model=MODEL,
        traffic_class=INTERACTIVE,
        tenant="screen",
        duration_s=duration_s,
        rate_per_s=INTERACTIVE_PER_S,
        seq=SEQ,
        triton_priority=1 if with_priority else None,
    )
    if not phase.flooded:
        return [interactive]
    flood = _background(BACKGROUND, duration_s, rate_per_s=flood_per_s, triton_priority=2 if with_priority else None)
    return [interactive, flood]


def _background(
    name: str, duration_s: float, *, rate_per_s: float = 0.0, outstanding: int = 0, triton_priority: int | None = None
) -> Stream:
    return Stream(
        name=name,
        model=MODEL,
        traffic_class=BACKGROUND,
        tenant="batch",
        duration_s=duration_s,
        rate_per_s=rate_per_s,
        outstanding=outstanding,
        seq=SEQ,
        triton_priority=triton_priority,
    )
