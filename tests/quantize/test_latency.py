import time
from typing import Any, cast

import numpy as np

from export.session import Session
from quantize.latency import WARM_UP, median_ms


class Sleeper:
    """A session that takes as long as it is told, and notes when it was called."""

    def __init__(self, name: str, seconds: list[float], calls: list[str]) -> None:
        self.name, self.seconds, self.calls = name, seconds, calls

    def run(self, feed: Any) -> Any:
        del feed
        self.calls.append(self.name)
        time.sleep(self.seconds[(len(self.calls) - 1) // 2 % len(self.seconds)])
        return np.zeros(1)


def test_sessions_run_in_turn_and_the_median_ignores_an_outlier() -> None:
    calls: list[str] = []
    # One round in five takes a hundred times as long: a mean would be over 20 ms.
    slow = Sleeper("slow", [0.005, 0.005, 0.005, 0.005, 0.1], calls)
    fast = Sleeper("fast", [0.0], calls)
    first, second = median_ms((cast(Session, slow), cast(Session, fast)), {}, rounds=10)
    assert calls == ["slow", "fast"] * (WARM_UP + 10)
    assert 5 <= first < 20
    assert second < first
