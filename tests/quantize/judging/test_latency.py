from typing import Any

import numpy as np
import pytest

from quantize.judging import latency
from quantize.judging.latency import ROUNDS_MAX, ROUNDS_MIN, WARM_UP, medians_ms


class Clock:
    """Processor time that only models spend."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Model:
    """Takes as long as it is told, one run after another, and notes when it was called."""

    def __init__(self, name: str, seconds: list[float], calls: list[str], clock: Clock) -> None:
        self.name, self.seconds, self.calls, self.clock, self.runs = name, seconds, calls, clock, 0

    def run(self, feed: Any) -> Any:
        del feed
        self.calls.append(self.name)
        self.clock.now_s += self.seconds[self.runs % len(self.seconds)]
        self.runs += 1
        return np.zeros(1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency.time, "process_time", clock)
    return clock


def test_models_run_in_turn_and_the_median_ignores_an_outlier(clock: Clock) -> None:
    calls: list[str] = []
    slow, fast = Model("slow", [0.005, 0.005, 0.005, 0.1], calls, clock), Model("fast", [0.001], calls, clock)
    assert medians_ms((slow, fast), {}) == pytest.approx([5, 1])
    assert calls == ["slow", "fast"] * (WARM_UP + ROUNDS_MAX)


def test_slow_shapes_get_fewer_rounds(clock: Clock) -> None:
    calls: list[str] = []
    medians_ms([Model("slow", [60], calls, clock)], {})
    assert len(calls) == WARM_UP + ROUNDS_MIN
