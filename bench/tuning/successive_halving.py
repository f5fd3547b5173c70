"""The search of `fairlane tune`: successive halving under open-loop load, and a final in which the default stands.

Short runs come first, all at the same rate; each round the better half goes on to a run of twice the length at a higher
rate. Source: K. Jamieson, A. Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization",
AISTATS 2016. A run costs its length, so n settings cost about log2(n) times what running each once would.

The last few and the default go to the final: in several rounds, in turn, the capacity of each at the objective and its
p99 at 70 % of the default's capacity. A setting takes the default's place only where its worst round's capacity is
above the default's best, and its p99 there is no higher in the median round.
"""

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.tuning.knee import find_knee, knee
from bench.tuning.setting import Setting
from bench.tuning.trial import Trial

Measure = Callable[[Setting, float, float], Awaitable[Trial]]  # setting, rate per second, seconds

FINALISTS: Final = 2  # beside the default
# Of what the default answers of a closed loop. The first tells who cannot keep up; the next who has room left.
RUNG_RATES: Final = (0.7, 0.9, 1.1, 1.3)
TYPICAL: Final = 0.7
TOLERANCE: Final = 0.1
HEADROOM: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One setting's run in one round of halving, and whether it went on."""

    setting: Setting
    number: int
    trial: Trial
    kept: bool


@dataclass(kw_only=True)
class Finalist:
    """What the final measured of a setting, by round: requests per second at the objective, and p99 at 70 %."""

    setting: Setting
    capacity_per_s: list[float] = field(default_factory=list)
    typical_p99_ms: list[float] = field(default_factory=list)

    def beats(self, default: "Finalist") -> bool:
        """Whether it is better than the default beyond the noise of the rounds, and nowhere worse."""
        ratios = [mine / its for mine, its in zip(self.typical_p99_ms, default.typical_p99_ms, strict=True)]
        return min(self.capacity_per_s) > max(default.capacity_per_s) and statistics.median(ratios) <= 1


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The outcome.

    Attributes:
        rungs: of the halving, in order.
        finalists: the default first.
        typical_per_s: the rate of the p99s of the final.
        best: the setting to use: the default where none beat it.
        valid: whether the load was the one asked for in every run.
    """

    rungs: list[Rung]
    finalists: list[Finalist]
    typical_per_s: float
    best: Finalist
    valid: bool


class SettingSearch:
    """One search.

    Args:
        measure: runs a setting at a rate for so many seconds.
        p99_ms: the objective.
        closed_loop_per_s: what the default answers of a closed loop.
        seconds: of a run in the final. The first round's are a quarter of it.
        rounds: of the final.
    """

    def __init__(
        self, measure: Measure, *, p99_ms: float, closed_loop_per_s: float, seconds: float, rounds: int
    ) -> None:
        self._measure_once = measure
        self._p99_ms = p99_ms
        self._closed_loop_per_s = closed_loop_per_s
        self._seconds = seconds
        self._rounds = rounds
        self._valid = True

    async def run(self, settings: Sequence[Setting]) -> Tuned:
        """Search; the first setting is the default."""
        default, *rest = settings
        rungs = await self._halve(rest)
        left = rest if not rungs else [rung.setting for rung in rungs if rung.number == rungs[-1].number and rung.kept]
        finalists = [Finalist(setting=setting) for setting in (default, *left)]
        typical_per_s = await self._final(finalists)
        better = [each for each in finalists[1:] if each.beats(finalists[0])]
        best = max(better, key=lambda each: statistics.median(each.capacity_per_s), default=finalists[0])
        return Tuned(rungs=rungs, finalists=finalists, typical_per_s=typical_per_s, best=best, valid=self._valid)

    async def _measure(self, setting: Setting, rate_per_s: float, seconds: float) -> Trial:
        trial = await self._measure_once(setting, rate_per_s, seconds)
        self._valid = self._valid and trial.valid
        return trial

    async def _halve(self, settings: Sequence[Setting]) -> list[Rung]:
        rungs: list[Rung] = []
        left, number = list(settings), 0
        while len(left) > FINALISTS:
            rate_per_s = RUNG_RATES[min(number, len(RUNG_RATES) - 1)] * self._closed_loop_per_s
            seconds = min(self._seconds, self._seconds / 4 * 2**number)
            trials = {setting: await self._measure(setting, rate_per_s, seconds) for setting in left}
            ranked = sorted(left, key=lambda setting: self._rank(trials[setting]))
            kept = ranked[: max(FINALISTS, len(left) // 2)]
            rungs += [Rung(setting=one, number=number, trial=trials[one], kept=one in kept) for one in ranked]
            left, number = kept, number + 1
        return rungs

    def _rank(self, trial: Trial) -> tuple[bool, float]:
        """Those that keep the objective first; among equals by p99, NaN (nothing was answered) last."""
        return not trial.holds(self._p99_ms), math.inf if math.isnan(trial.p99_ms) else trial.p99_ms

    async def _final(self, finalists: Sequence[Finalist]) -> float:
        for _ in range(self._rounds):
            for each in finalists:
                each.capacity_per_s.append(await self._capacity(each.setting))
        # A default that never keeps the objective has no capacity to take 70 % of.
        capacity_per_s = statistics.median(finalists[0].capacity_per_s) or self._closed_loop_per_s
        for _ in range(self._rounds):
            for each in finalists:
                trial = await self._measure(each.setting, TYPICAL * capacity_per_s, self._seconds)
                each.typical_p99_ms.append(trial.p99_ms)
        return TYPICAL * capacity_per_s

    async def _capacity(self, setting: Setting) -> float:
        async def measure(rate_per_s: float) -> Trial:
            return await self._measure(setting, rate_per_s, self._seconds)

        high_per_s = HEADROOM * self._closed_loop_per_s
        trials = await find_knee(measure, p99_ms=self._p99_ms, high_per_s=high_per_s, tolerance=TOLERANCE)
        best = knee(trials, self._p99_ms)
        return 0.0 if best is None else best.rate_per_s
