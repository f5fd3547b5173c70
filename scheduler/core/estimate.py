"""How long a batch takes: latency = a + b * rows, learned online per merge key.

Least squares with exponential forgetting over (rows, seconds). Sums of weights decay by FORGET with
each sample, so the line follows drift within about 1 / (1 - FORGET) batches. Robustness: once a line
is known, a sample counts for at most OUTLIER times what was expected, so that one stall does not
double the estimate, while a lasting change still arrives (geometrically). Where all samples have the
same rows the slope cannot be seen, and the line runs through the origin, which never underrates the
saving of a smaller batch. The form of the line is BentoML's and Clockwork's (OSDI 2020, section 4.3:
execution of a model at one batch size is predictable).

Cold start: nothing is extrapolated beyond GROWTH times the largest batch that was seen, so the first
batches grow 1, 2, 4, ... and a wrong first guess costs one small batch.
"""

from collections import OrderedDict
from typing import Final

FORGET: Final = 0.97
OUTLIER: Final = 3.0
KNOWN_SAMPLES: Final = 5
GROWTH: Final = 2
# Service time of one row of a model that has never run; any value will do, shares are relative.
FIRST_ROW_S: Final = 0.005
# Lines kept; the least recently used is dropped (a merge key per sequence length can be many).
MAX_LINES: Final = 1024


class LatencyLine:
    """Seconds of service as a function of rows, for one merge key."""

    __slots__ = ("_n", "_sx", "_sxx", "_sxy", "_sy", "largest_rows", "samples")

    def __init__(self) -> None:
        self._n = self._sx = self._sy = self._sxx = self._sxy = 0.0
        self.samples = 0
        self.largest_rows = 0

    def learn(self, rows: int, service_s: float) -> None:
        """Take in one finished batch."""
        if self.samples >= KNOWN_SAMPLES:
            service_s = min(service_s, OUTLIER * self.predict(rows))
        self._n = self._n * FORGET + 1
        self._sx = self._sx * FORGET + rows
        self._sy = self._sy * FORGET + service_s
        self._sxx = self._sxx * FORGET + rows * rows
        self._sxy = self._sxy * FORGET + rows * service_s
        self.samples += 1
        self.largest_rows = max(self.largest_rows, rows)

    def coefficients(self) -> tuple[float, float]:
        """(a, b): seconds a batch, seconds a row; both at least 0."""
        if not self.samples:
            return 0.0, FIRST_ROW_S
        spread = self._n * self._sxx - self._sx * self._sx
        if spread <= 1e-6 * self._n * self._sxx:
            return 0.0, self._sy / self._sx
        slope = (self._n * self._sxy - self._sx * self._sy) / spread
        intercept = (self._sy - slope * self._sx) / self._n
        if intercept < 0:
            return 0.0, self._sxy / self._sxx
        if slope < 0:
            return self._sy / self._n, 0.0
        return intercept, slope

    def predict(self, rows: int) -> float:
        """Expected service seconds of a batch of so many rows."""
        a, b = self.coefficients()
        return a + b * rows

    @property
    def row_s(self) -> float:
        """Seconds a row has cost on average, its part of the batch's constant included."""
        return self._sy / self._sx if self.samples else FIRST_ROW_S

    def rows_within(self, bound_s: float) -> int:
        """The largest batch expected to end within the bound, no more than GROWTH times the largest seen."""
        a, b = self.coefficients()
        grown = max(1, GROWTH * self.largest_rows)
        if bound_s <= a:
            return 0
        return grown if b == 0 else min(grown, int((bound_s - a) / b))


class Estimator:
    """The lines of one model, by merge key; a key that was never seen starts from the model's own line."""

    __slots__ = ("_lines", "_model")

    def __init__(self) -> None:
        self._lines: OrderedDict[str, LatencyLine] = OrderedDict()
        self._model = LatencyLine()

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, merge_key: str | None) -> LatencyLine:
        """The line to predict with."""
        if merge_key is None:
            return self._model
        return self._lines.get(merge_key, self._model)

    def rows_within(self, merge_key: str | None, bound_s: float) -> int:
        """As LatencyLine.rows_within; a merge key that was never seen is tried with one row first."""
        if merge_key is None or merge_key in self._lines:
            return self.line(merge_key).rows_within(bound_s)
        return min(1, self._model.rows_within(bound_s))

    def learn(self, merge_key: str | None, rows: int, service_s: float) -> None:
        """Take in one finished batch."""
        self._model.learn(rows, service_s)
        if merge_key is None:
            return
        line = self._lines.pop(merge_key, None) or LatencyLine()
        self._lines[merge_key] = line
        line.learn(rows, service_s)
        if len(self._lines) > MAX_LINES:
            self._lines.popitem(last=False)
