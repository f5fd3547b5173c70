"""Calibration: real inputs that give the ranges of activations. Inputs with NaN or with an outlier are refused."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median_low
from typing import Any, Final

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from export.definition.tensor import Feed, beyond
from export.errors import ExportError

# Called anew for each pass over the inputs.
Calibration = Callable[[], Iterable[Feed]]

# An input that reaches this much further than half of the samples do leaves those a four-hundredth of one of its 255
# steps: all of them round to zero.
STRETCH: Final = 1e5


class CalibrationError(ExportError):
    """There is nothing to calibrate on, or what it gives is no range."""


class FeedReader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration feeds, in the form onnxruntime asks for them."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._every = list(feeds)
        self._feeds = iter(self._every)

    def __len__(self) -> int:
        return len(self._every)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these feeds only, from now on."""
        self._feeds = iter(self._every[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, or None after the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def check_inputs(inputs: Sequence[str], feeds: Iterable[Feed]) -> None:
    """Refuse calibration inputs that give no range, or one that is of use to few of them.

    Args:
        inputs: those of the graph's that are quantized as they come.
        feeds: the calibration inputs.

    Raises:
        CalibrationError: naming the input, the sample, what was expected and what came.
    """
    reach: dict[str, list[float]] = {}
    for number, feed in enumerate(feeds):
        ranged = {name: feed[name] for name in inputs if feed[name].dtype.kind == "f" and feed[name].size}
        if said := beyond(ranged):
            raise CalibrationError(f"calibration {number}: {said}")
        for name, value in ranged.items():
            reach.setdefault(name, []).append(float(np.abs(value).max()))
    for name, reached in reach.items():
        usual, largest = median_low(reached), max(reached)
        if largest > STRETCH * usual > 0:
            raise CalibrationError(
                f"calibration {reached.index(largest)}: input {name!r}: expected numbers like those of the others, "
                f"half of which reach {usual:.3g} at most, got {largest:.3g}; one scale for all would make them zeros"
            )
