"""When requests are due: reproducible arrival times of an open-loop stream.

All kinds but replay are Poisson processes whose rate may change over time, made by time rescaling (Cinlar,
Introduction to Stochastic Processes, 1975, ch. 4): unit-rate arrivals are mapped through the inverse of the cumulative
rate.
"""

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Offsets = NDArray[np.float64]

GRID_S: Final = 0.001  # the cumulative rate is exact on this grid and linear between


class _Kind(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Poisson(_Kind):
    """Independent arrivals at the stream's rate."""

    kind: Literal["poisson"] = "poisson"


class Bursty(_Kind):
    """Interrupted Poisson process: arrivals in bursts, silence between, lengths exponential, the stream's mean rate."""

    kind: Literal["bursty"]
    burst_s: float = Field(default=0.25, gt=0, description="Mean length of a burst.")
    duty: float = Field(default=0.25, gt=0, lt=1, description="Share of the time that is burst.")


class Diurnal(_Kind):
    """A day in short: the rate follows a sine from its low at the start to its peak half a period later."""

    kind: Literal["diurnal"]
    period_s: float | None = Field(default=None, gt=0, description="Length of the day; the phase where not set.")
    amplitude: float = Field(default=0.8, gt=0, le=1, description="Peak above the mean, as a part of the mean.")


class Replay(_Kind):
    """Recorded arrivals: the first column of a CSV file, seconds from its start, ascending. The rate is the file's."""

    kind: Literal["replay"]
    file: Path
    speed: float = Field(default=1.0, gt=0, description="2 replays an hour in half an hour.")


def _named(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Arrivals = Annotated[
    Annotated[Poisson | Bursty | Diurnal | Replay, Field(discriminator="kind")], BeforeValidator(_named)
]


class Level(_Kind):
    """A point of a profile: from there the rate runs straight to the next point; two at one place are a step."""

    at: float = Field(ge=0, le=1, description="Part of the phase.")
    level: float = Field(ge=0, description="Multiple of the stream's rate.")


def offsets_s(
    arrivals: Poisson | Bursty | Diurnal | Replay,
    rate_per_s: float,
    duration_s: float,
    *,
    profile: Sequence[Level] = (),
    seed: int,
    stream: str,
) -> Offsets:
    """Due times in seconds from the start, ascending, all below `duration_s`.

    The same seed and stream name give the same arrivals; streams of one run are independent of each other.

    Args:
        arrivals: what kind of process.
        rate_per_s: mean arrivals per second (where there is a profile: at level 1).
        duration_s: length of the process.
        profile: how the rate changes over the phase; empty for a constant one.
        seed: of the run.
        stream: name of the stream.

    Returns:
        float64 array of shape [arrivals].

    Raises:
        ValueError: a replay file that cannot be read as ascending seconds.
    """
    if isinstance(arrivals, Replay):
        recorded_s = _recorded_s(arrivals.file) / arrivals.speed
        return recorded_s[recorded_s < duration_s]
    random = np.random.default_rng([seed, zlib.crc32(stream.encode())])
    grid_s = np.linspace(0, duration_s, max(2, round(duration_s / GRID_S) + 1))
    rate = rate_per_s * _profile(profile, grid_s / duration_s) * _modulation(arrivals, grid_s, random)
    expected = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(grid_s))])
    return np.interp(_unit_arrivals(expected[-1], random), expected, grid_s)


def _unit_arrivals(until: float, random: np.random.Generator) -> Offsets:
    """A Poisson process of rate 1 on [0, until)."""
    chunk = int(until) + 64
    arrived = np.cumsum(random.exponential(size=chunk))
    while arrived[-1] < until:
        arrived = np.concatenate([arrived, arrived[-1] + np.cumsum(random.exponential(size=chunk))])
    return arrived[arrived < until]


def _profile(profile: Sequence[Level], part: Offsets) -> Offsets:
    if not profile:
        return np.ones_like(part)
    return np.interp(part, [point.at for point in profile], [point.level for point in profile])


def _modulation(arrivals: Poisson | Bursty | Diurnal, grid_s: Offsets, random: np.random.Generator) -> Offsets:
    if isinstance(arrivals, Bursty):
        return _bursts(arrivals, grid_s, random)
    if isinstance(arrivals, Diurnal):
        period_s = arrivals.period_s or float(grid_s[-1])
        return 1 - arrivals.amplitude * np.cos(2 * np.pi * grid_s / period_s)
    return np.ones_like(grid_s)


def _bursts(bursty: Bursty, grid_s: Offsets, random: np.random.Generator) -> Offsets:
    """1 / duty within a burst, 0 outside."""
    cycle_s = bursty.burst_s / bursty.duty
    cycles = int(grid_s[-1] / cycle_s * 2) + 64
    lengths_s = np.empty(2 * cycles)
    lengths_s[0::2] = random.exponential(cycle_s - bursty.burst_s, size=cycles)
    lengths_s[1::2] = random.exponential(bursty.burst_s, size=cycles)
    inside = np.searchsorted(np.cumsum(lengths_s), grid_s, side="right") % 2 == 1
    return np.where(inside, 1 / bursty.duty, 0.0)


def _recorded_s(file: Path) -> Offsets:
    with file.open(newline="") as rows:
        try:
            recorded_s = np.array([float(row[0]) for row in csv.reader(rows) if row])
        except ValueError as error:
            raise ValueError(f"{file}: expected seconds in the first column: {error}") from None
    if not len(recorded_s) or np.any(np.diff(recorded_s) < 0) or recorded_s[0] < 0:
        raise ValueError(f"{file}: expected ascending seconds from 0 on")
    return recorded_s
