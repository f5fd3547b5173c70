"""How long a batch takes: latency = a + b * rows, learned online per backend, model and merge key.

Least squares with exponential forgetting over (rows, seconds). Sums of weights decay by FORGET with
each sample, so the line follows drift within about 1 / (1 - FORGET) batches. The form of the line is
BentoML's and Clockwork's (OSDI 2020, section 4.3: execution of a model at one batch size is predictable).

Robustness is Huber's (1964), on the side on which stalls lie: a sample is clipped to 1 + CLIP * s times what was
expected, where s is the mean absolute relative deviation of late. So one stall of any length moves the line by at
most (1 - FORGET) * CLIP * s, about half a per cent where batches are even; a lasting change raises s with every
sample (to no more than SPREAD_MAX), the clip opens, and the line follows geometrically. What is faster than
expected is believed, and so is more of what is larger than all of late (s is taken as SPREAD_NEW): there the
line may be wrong.

Slow first runs, or a time in which everything was slow, end at once: where RESTART batches in a row took less than FAST
of what was expected, the line begins anew with these. Forgetting alone would take 200 batches from 6 s to 5 ms. (What
is only now and then slow does not come to so low a part: of two modes the faster one would need to be below FAST of the
mean, and to come RESTART times in a row.)

Where all samples have the same rows the slope cannot be seen; the constant keeps the part of the whole
that it had when the slope was last seen. Before that it counts as none, which may overrate a larger
batch so much that none is ever tried (a = 15 ms, b = 0.1 ms, bound 25 ms: one row takes 15.1 ms, and
two would be thought to take 30.2): so as long as what runs is within the bound, the next size is tried.

Cold start: nothing is extrapolated beyond GROWTH times the largest batch seen of late, so the first
batches grow 1, 2, 4, ... and a wrong guess costs one batch of twice the usual size.
"""

from collections import OrderedDict
from math import ceil, inf
from typing import Final

FORGET: Final = 0.97
CLIP: Final = 3.0
# Deviations decay by this with each sample: the spread of the last ten or so.
SPREAD_FORGET: Final = 0.9
# Service times are never more even than this, nor counted as less even than that.
SPREAD_MIN: Final = 0.05
SPREAD_MAX: Final = 2.0
SPREAD_NEW: Final = 1.0
KNOWN_SAMPLES: Final = 5
GROWTH: Final = 2
# Service time of one row of a model that has never run; any value will do, shares are relative.
FIRST_ROW_S: Final = 0.005
RESTART: Final = 8
FAST: Final = 0.2
# A spread of rows below this part of their mean square is none: too little to see a slope by.
FLAT: Final = 1e-6
# A clock that stood still must not make a model free: nothing could ever outweigh a prediction of zero.
LEAST_S: Final = 1e-6
# Lines kept; the least recently used is dropped (a merge key per sequence length can be many).
MAX_LINES: Final = 1024


class LatencyLine:
    """Seconds of service as a function of rows, for one merge key.

    Attributes:
        largest_rows: of the batches of late; decays while smaller ones run.
        samples: batches learned from.
    """

    __slots__ = (
        "_constant_part",
        "_fast",
        "_flat",
        "_line",
        "_n",
        "_spread",
        "_stale",
        "_sx",
        "_sxx",
        "_sxy",
        "_sy",
        "largest_rows",
        "samples",
    )

    def __init__(self) -> None:
        self._n = self._sx = self._sy = self._sxx = self._sxy = 0.0
        self._line = (0.0, FIRST_ROW_S)
        self._flat = False
        self._stale = False
        self._constant_part = 0.0
        self._spread = SPREAD_NEW
        # The latest batches in a row that were much faster than expected: rows, seconds.
        self._fast: list[tuple[int, float]] = []
        self.samples = 0
        self.largest_rows = 0.0

    def learn(self, rows: int, service_s: float) -> float:
        """Take in one finished batch; returns the seconds it counted for, clipped."""
        service_s = max(service_s, LEAST_S)
        if self.samples >= KNOWN_SAMPLES:
            service_s = self._clip(rows, service_s)
        self.add(rows, service_s)
        return service_s

    def add(self, rows: int, service_s: float) -> None:
        """Take in a batch as it is."""
        if self.samples and service_s < FAST * self.predict(rows):
            self._fast.append((rows, service_s))
            if len(self._fast) == RESTART:
                self._begin_anew()
                return
        elif self._fast:
            self._fast.clear()
        self._sum(rows, service_s)

    def _begin_anew(self) -> None:
        fast, self._fast = self._fast, []
        self._n = self._sx = self._sy = self._sxx = self._sxy = 0.0
        self._spread = SPREAD_NEW
        self.samples = 0
        for rows, service_s in fast:
            self._sum(rows, service_s)

    def _sum(self, rows: int, service_s: float) -> None:
        self._n = self._n * FORGET + 1
        self._sx = self._sx * FORGET + rows
        self._sy = self._sy * FORGET + service_s
        self._sxx = self._sxx * FORGET + rows * rows
        self._sxy = self._sxy * FORGET + rows * service_s
        self.samples += 1
        largest = FORGET * self.largest_rows
        self.largest_rows = rows if rows > largest else largest
        self._stale = True

    def _clip(self, rows: int, service_s: float) -> float:
        expected_s = self.predict(rows)
        usual = max(self._spread, SPREAD_MIN if rows <= self.largest_rows else SPREAD_NEW)
        self._spread += (1 - SPREAD_FORGET) * (min(abs(service_s / expected_s - 1), SPREAD_MAX) - self._spread)
        return min(service_s, expected_s * (1 + CLIP * usual))

    def coefficients(self) -> tuple[float, float]:
        """(a, b): seconds a batch, seconds a row; both at least 0."""
        if self._stale:
            self._line = self._fit()
            self._stale = False
        return self._line

    def predict(self, rows: int) -> float:
        """Expected service seconds of a batch of so many rows."""
        a, b = self.coefficients() if self._stale else self._line
        return a + b * rows

    @property
    def batch_s(self) -> float:
        """Seconds a batch has taken on average."""
        return self._sy / self._n if self.samples else FIRST_ROW_S

    @property
    def row_s(self) -> float:
        """Seconds a row has cost on average, its part of the batch's constant included."""
        return self._sy / self._sx if self.samples else FIRST_ROW_S

    def rows_for_rate(self, part: float, most: int) -> int:
        """The smallest batch at which the model serves this part of the rows a second that it does in one of `most`."""
        a, b = self.coefficients()
        return ceil(part * most * a / (a + (1 - part) * b * most)) if a else 1

    def rows_within(self, bound_s: float) -> int:
        """The largest batch expected to end within the bound, no more than GROWTH times the largest seen."""
        grown = max(1, int(GROWTH * self.largest_rows))
        return int(min(grown, self.rows_in(bound_s)))

    def rows_in(self, bound_s: float) -> float:
        """The rows of a batch that takes as long as the bound, be they ever so many more than were seen."""
        a, b = self.coefficients()
        if bound_s <= a:
            return 0
        return inf if b == 0 or self._next_size_unknown(bound_s) else (bound_s - a) / b

    def _next_size_unknown(self, bound_s: float) -> bool:
        return self._flat and not self._constant_part and self._sy <= bound_s * self._n

    def _fit(self) -> tuple[float, float]:
        """Least squares with both coefficients at least 0."""
        spread = self._n * self._sxx - self._sx * self._sx
        self._flat = spread <= FLAT * self._n * self._sxx
        if self._flat:
            constant_s = self._constant_part * self._sy / self._n
            return constant_s, (1 - self._constant_part) * self._sy / self._sx
        slope = (self._n * self._sxy - self._sx * self._sy) / spread
        intercept = (self._sy - slope * self._sx) / self._n
        if intercept < 0:
            intercept, slope = 0.0, self._sxy / self._sxx
        elif slope < 0:
            intercept, slope = self._sy / self._n, 0.0
        self._constant_part = intercept * self._n / self._sy
        return intercept, slope


class Estimator:
    """The lines of one model, by merge key; a key that was never seen starts from the model's own line.

    Args:
        others: what to predict by until a batch has been learned from, such as the model on all backends. How many
            rows may be tried is never taken from there: a backend that is new is tried with one row first.
    """

    __slots__ = ("_lines", "_model", "_others")

    def __init__(self, others: "Estimator | None" = None) -> None:
        self._lines: OrderedDict[str, LatencyLine] = OrderedDict()
        self._model = LatencyLine()
        self._others = others

    def __len__(self) -> int:
        return len(self._lines)

    def knows(self, merge_key: str | None) -> bool:
        """Whether a batch of this key has been learned from; None: any batch."""
        return self._model.samples > 0 if merge_key is None else merge_key in self._lines

    def line(self, merge_key: str | None) -> LatencyLine:
        """The line to predict with."""
        if self._others is not None and not self._model.samples:
            return self._others.line(merge_key)
        return self._model if merge_key is None else self._lines.get(merge_key, self._model)

    def rows_within(self, merge_key: str | None, bound_s: float) -> int:
        """As LatencyLine.rows_within; a merge key that was never seen is tried with one row first."""
        if merge_key is None:
            return self._model.rows_within(bound_s)
        line = self._lines.get(merge_key)
        return min(1, self._model.rows_within(bound_s)) if line is None else line.rows_within(bound_s)

    def rows_for_free(self, merge_key: str | None, rows: int, part: float) -> int:
        """Rows to which a batch of so many may be filled up while it takes no more than `part` of its time longer."""
        line = self.line(merge_key)
        return max(rows, line.rows_within(line.predict(rows) * (1 + part)))

    def learn(self, merge_key: str | None, rows: int, service_s: float) -> float:
        """Take in one finished batch; returns the seconds it counted for, clipped by its own line."""
        if merge_key is None:
            return self._model.learn(rows, service_s)
        service_s = self._own_line(merge_key).learn(rows, service_s)
        self._model.add(rows, service_s)
        return service_s

    def add(self, merge_key: str | None, rows: int, service_s: float) -> None:
        """Take in a batch as it is."""
        self._model.add(rows, service_s)
        if merge_key is not None:
            self._own_line(merge_key).add(rows, service_s)

    def _own_line(self, merge_key: str) -> LatencyLine:
        """The key's line, now the most recently used."""
        line = self._lines.get(merge_key)
        if line is not None:
            self._lines.move_to_end(merge_key)
            return line
        line = self._lines[merge_key] = LatencyLine()
        if len(self._lines) > MAX_LINES:
            self._lines.popitem(last=False)
        return line
