"""How many lesser batches a backend may run beside a more important model: an adaptive limit across its models.

The models of a backend share its cores, or its GPU, and a batch slows down the others that run beside it, whatever
their class: Triton's priorities and limit.py are about one model. So lesser batches (those that a class with a `wait_s`
may overtake) are limited over all models of a backend while a more important model is active there; the important are
never limited, and go first. With N lesser batches of at most T each (limit.py) on a backend that shares fairly, an
important batch takes N + 1 times as long as alone, and where the backend works one by one it waits for N * T: so the
fewer, the better for the important, and 1 is the floor: the lesser are never stopped, and keep at least their turn.

The limit moves by gradient, as Netflix's Gradient2 (concurrency-limits, 2018) does by the ratio of long-term to present
round-trip time. Round-trip time would grow with the size of batches by design, so the ratio here is that of a batch of
the important model to what as many rows of it take where nothing lesser of another model runs (`alone`, a latency
line of its own). That line learns from those batches. One that ran beside c lesser ones tells less: sharing fairly it
took at most c + 1 times as long as alone, and no less than alone, so it only moves the line to within these bounds.
Where the important model never runs alone the limit thus takes the worst for true at first, and finds out by growing.
A batch that is STALL times outside of these bounds says that the backend stood still, goes on after it, or has become
another: for the next RELEARNED batches the worst is taken for true again. Otherwise the line would stay at whatever
part of the stall agrees with what comes after, and the limit too high for good:

    ratio    moving average of service / alone, each at most RATIO_MAX: one stall halves the limit at most once or twice
    gradient = min(1, max(1/2, TOLERANCE / ratio)); 1/2 also where one batch took longer than alone by over its wait_s
    limit    = limit * gradient, + STEP where the gradient is 1; between 1 and all places of the backend's models

So the limit falls from any height n to 1 within log2(n) + 1 slow batches after the average has passed TOLERANCE, and
grows by one within 1 / STEP good ones: it stands at the number at which the important take about TOLERANCE times as
long as alone. It binds only while a batch of a more important class of another model went out within the last
QUIET_S, so one model by itself never meets it; each quiet spell of that length doubles it. Before anything is known it
is 1.
"""

from dataclasses import dataclass
from typing import Final

from scheduler.core.latency.estimate import LEAST_S, Estimator

# Beside one batch on one core it is 2: that is the floor, and not to be told from a limit that could grow.
TOLERANCE: Final = 2.25
RATIO_MAX: Final = 4.0
# The average follows within about three batches.
SMOOTHING: Final = 0.3
# More than service times of one size vary where nothing is wrong.
STALL: Final = 1.5
RELEARNED: Final = 20
STEP: Final = 0.05
QUIET_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished batch of a class with a `wait_s`; `crowd` lesser batches of other models were beside it."""

    model: str
    merge_key: str | None
    rows: int
    service_s: float
    wait_s: float
    crowd: int


class ConcurrencyLimit:
    """The limit of one backend.

    Attributes:
        limit: lesser batches in flight, at most; only the whole ones count.
        ratio: of present service times to those alone.
        why: it moved last, in words.
        moved_at: monotonic seconds.
    """

    __slots__ = ("_active_at", "_alone", "_relearning", "limit", "moved_at", "ratio", "why")

    def __init__(self) -> None:
        self.limit = 1.0
        self.ratio = 1.0
        self.why = "nothing is known yet"
        self.moved_at = 0.0
        self._alone: dict[str, Estimator] = {}
        self._active_at: dict[tuple[str, int], float] = {}
        # Batches of a model that are still to be taken for the worst.
        self._relearning: dict[str, int] = {}

    @property
    def gradient(self) -> float:
        """What the limit is multiplied with where the important take too long: between 1/2 and 1, by the ratio."""
        return min(1.0, max(0.5, TOLERANCE / self.ratio))

    def binds(self, model: str, rank: int, *, now: float) -> bool:
        """Whether batches of this model and class rank must keep to the limit: a more important one is active."""
        return any(
            above < rank and other != model and now - at < QUIET_S for (other, above), at in self._active_at.items()
        )

    def active(self, model: str, rank: int, *, most: int, now: float) -> None:
        """A batch of a class with a `wait_s` goes out."""
        last = max(self._active_at.values(), default=now)
        self._active_at[model, rank] = now
        spells = int((now - last) / QUIET_S)
        if spells:
            self._move(min(most, self.limit * 2.0 ** min(spells, 32)), "quiet", now)

    def learn(self, sample: Sample, *, most: int, now: float) -> None:
        """Take in a finished batch; `most` is the highest the limit may be."""
        service_s = max(sample.service_s, LEAST_S)
        if not sample.crowd:
            if self._relearning.pop(sample.model, 0):
                del self._alone[sample.model]
            self._line_of(sample.model).learn(sample.merge_key, sample.rows, service_s)
            return
        expected_s = self._expected_s(sample, service_s)
        self.ratio += SMOOTHING * (min(service_s / expected_s, RATIO_MAX) - self.ratio)
        if service_s - expected_s > sample.wait_s:
            self._move(max(1.0, self.limit / 2), f"{sample.model} took longer than alone by over its wait", now)
        elif self.ratio > TOLERANCE:
            why = f"{sample.model} takes {self.ratio:.2g} times as long as alone"
            self._move(max(1.0, self.limit * self.gradient), why, now)
        else:
            self._move(min(float(most), self.limit + STEP), f"{sample.model} is hardly slower than alone", now)

    def _expected_s(self, sample: Sample, service_s: float) -> float:
        """What the batch would have taken alone, as far as is known; the line learns what this batch tells of it."""
        alone, least_s = self._line_of(sample.model), service_s / (1 + sample.crowd)
        known = alone.knows(sample.merge_key)
        expected_s = alone.line(sample.merge_key).predict(sample.rows) if known else 0.0
        if known and not least_s / STALL <= expected_s <= service_s * STALL:
            self._relearning[sample.model] = RELEARNED
        left = self._relearning.get(sample.model, 0)
        if left:
            self._relearning[sample.model] = left - 1
            if known and not least_s / STALL <= expected_s <= least_s * STALL:
                alone = self._alone[sample.model] = Estimator()
            alone.learn(sample.merge_key, sample.rows, least_s)
            return least_s
        if not least_s <= expected_s <= service_s:
            expected_s = min(max(expected_s, least_s), service_s)
            alone.learn(sample.merge_key, sample.rows, expected_s)
        return expected_s

    def _line_of(self, model: str) -> Estimator:
        alone = self._alone.get(model)
        if alone is None:
            alone = self._alone[model] = Estimator()
        return alone

    def _move(self, limit: float, why: str, now: float) -> None:
        if limit != self.limit:
            self.limit, self.why, self.moved_at = limit, why, now
