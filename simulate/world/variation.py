"""How the times of a model's batches differ from what their rows say: in modes, cold at first, drifting, heavy-tailed.

Each is a factor on a batch's seconds of work, but for the cold start, which is a time of its own.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import pi, sin
from random import Random


class Variation(ABC):
    """What becomes of the work of a batch. `mean` is that of the factor in the long run."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """The mean factor in the long run."""

    @abstractmethod
    def work_s(self, usual_s: float, number: int, chance: Random, *, now: float) -> float:
        """Seconds of work of the batch of this number (from 0) that starts now and would usually take `usual_s`."""


@dataclass(frozen=True, slots=True)
class Bimodal(Variation):
    """This part of the batches takes `times` as long: contents of one shape that are dear, or not in a cache."""

    part: float
    times: float

    @property
    def mean(self) -> float:
        """Of both modes."""
        return 1 + self.part * (self.times - 1)

    def work_s(self, usual_s: float, number: int, chance: Random, *, now: float) -> float:
        """One mode or the other, by chance."""
        del number, now
        return usual_s * (self.times if chance.random() < self.part else 1.0)


@dataclass(frozen=True, slots=True)
class Cold(Variation):
    """The first `runs` batches take `cold_s`: they compile, or load what is not there yet."""

    runs: int
    cold_s: float

    @property
    def mean(self) -> float:
        """Of a warm model."""
        return 1.0

    def work_s(self, usual_s: float, number: int, chance: Random, *, now: float) -> float:
        """Cold, and then as usual."""
        del chance, now
        return self.cold_s if number < self.runs else usual_s


@dataclass(frozen=True, slots=True)
class Drifting(Variation):
    """Between usual and `times` as long, as a sine over `period_s`: what else the machine does."""

    times: float
    period_s: float

    @property
    def mean(self) -> float:
        """Over a period."""
        return (1 + self.times) / 2

    def work_s(self, usual_s: float, number: int, chance: Random, *, now: float) -> float:
        """By the time at which it starts."""
        del number, chance
        return usual_s * (self.mean - (self.times - 1) / 2 * sin(2 * pi * now / self.period_s + pi / 2))


@dataclass(frozen=True, slots=True)
class HeavyTailed(Variation):
    """A Pareto factor of this `shape` (above 1) with mean 1: most take a third of the mean, a few many times it."""

    shape: float

    @property
    def mean(self) -> float:
        """As usual."""
        return 1.0

    def work_s(self, usual_s: float, number: int, chance: Random, *, now: float) -> float:
        """By chance."""
        del number, now
        return usual_s * (self.shape - 1) / self.shape * chance.paretovariate(self.shape)
