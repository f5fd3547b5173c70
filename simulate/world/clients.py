"""Who sends: open loops (arrivals never wait for answers) and the closed loop.

Each client draws from a generator of its own, seeded by the world's seed and the client's place, so that a
run repeats exactly and one more client does not change what the others send.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, pi, sin
from random import Random
from typing import Final, Protocol

from simulate.world.clock import Clock
from simulate.world.load import Load
from simulate.world.record import Record

# A closed loop that is refused without being told when to come again.
RETRY_S: Final = 1.0


class Intake(Protocol):
    """Where clients submit tickets; a World is one."""

    clock: Clock

    def submit(self, load: Load, chance: Random, on_end: Callable[[Record], None] | None = None) -> None:
        """One ticket of this kind arrives now; `on_end` is called once, when it has ended."""


class Client(ABC):
    """Something that submits tickets."""

    @abstractmethod
    def start(self, intake: Intake, chance: Random) -> None:
        """Arrange the first arrivals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop(Client):
    """Arrivals at times that do not depend on answers, from `start_s` until `stop_s`."""

    load: Load
    start_s: float = 0.0
    stop_s: float = inf

    @abstractmethod
    def times(self, chance: Random) -> Iterator[float]:
        """Arrival times in seconds, ascending."""

    def start(self, intake: Intake, chance: Random) -> None:
        """Arrange the first arrival; each arranges the next."""
        times = self.times(chance)

        def arrive() -> None:
            intake.submit(self.load, chance)
            arrange()

        def arrange() -> None:
            when = next(times, inf)
            if when < self.stop_s:
                intake.clock.at(when, arrive)

        arrange()


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic(OpenLoop):
    """One every `1 / per_s` seconds, the first at `start_s`."""

    per_s: float

    def times(self, chance: Random) -> Iterator[float]:
        """Equal gaps."""
        del chance
        number = 0
        while True:
            yield self.start_s + number / self.per_s
            number += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisson(OpenLoop):
    """Independent arrivals, `per_s` on average."""

    per_s: float

    def times(self, chance: Random) -> Iterator[float]:
        """Exponential gaps."""
        when = self.start_s
        while True:
            when += chance.expovariate(self.per_s)
            yield when


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursty(OpenLoop):
    """An interrupted Poisson process: `per_s` for `on_s` seconds, nothing for `off_s`, and so on."""

    per_s: float
    on_s: float
    off_s: float

    def times(self, chance: Random) -> Iterator[float]:
        """Poisson arrivals in time that counts the bursts alone, stretched by the pauses."""
        on_time_s = 0.0
        while True:
            on_time_s += chance.expovariate(self.per_s)
            yield self.start_s + on_time_s + int(on_time_s / self.on_s) * self.off_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Diurnal(OpenLoop):
    """A Poisson process whose rate follows a day: mean_per_s * (1 + swing * sin), least at `start_s`.

    By thinning: P. A. W. Lewis, G. S. Shedler, "Simulation of nonhomogeneous Poisson processes by thinning", 1979.
    """

    mean_per_s: float
    swing: float
    day_s: float

    def rate_per_s(self, when: float) -> float:
        """The rate at this time."""
        return self.mean_per_s * (1 + self.swing * sin(2 * pi * (when - self.start_s) / self.day_s - pi / 2))

    def times(self, chance: Random) -> Iterator[float]:
        """Arrivals at the peak's rate, each kept with the part that the rate is of it."""
        peak_per_s = self.mean_per_s * (1 + self.swing)
        when = self.start_s
        while True:
            when += chance.expovariate(peak_per_s)
            if chance.random() * peak_per_s <= self.rate_per_s(when):
                yield when


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm(OpenLoop):
    """`count` tickets at one instant."""

    count: int

    def times(self, chance: Random) -> Iterator[float]:
        """The same time, `count` times."""
        del chance
        for _ in range(self.count):
            yield self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop(Client):
    """`outstanding` callers; each sends again `think_s` after an answer, and after the pushback when it is refused."""

    load: Load
    outstanding: int
    start_s: float = 0.0
    think_s: float = 0.0

    def start(self, intake: Intake, chance: Random) -> None:
        """Arrange every caller's first ticket."""

        def send() -> None:
            intake.submit(self.load, chance, ended)

        def ended(record: Record) -> None:
            if not record.completed:
                intake.clock.at(intake.clock.now + (record.pushback_s or RETRY_S), send)
            elif self.think_s:
                intake.clock.at(intake.clock.now + self.think_s, send)
            else:
                send()

        for _ in range(self.outstanding):
            intake.clock.at(self.start_s, send)
