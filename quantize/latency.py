"""Latency: what one request costs on one thread, for several models in turn."""

import statistics
import time
from collections.abc import Sequence
from typing import Final

from export.tensor import Feed
from quantize.task import Runner

WARM_UP: Final = 2
ROUNDS_MIN: Final = 5
ROUNDS_MAX: Final = 40
# Of one shape, all models together; shapes that take longer get fewer rounds.
BUDGET_S: Final = 4.0


def medians_ms(models: Sequence[Runner], feed: Feed) -> list[float]:
    """Median processor time of each model on the same feed, in milliseconds.

    Processor time of this process, as others' work on the machine is not the model's; and in turn, so that what
    others do to caches and clocks strikes all alike. With one thread each it is latency on an idle machine.

    Args:
        models: opened with one thread each.
        feed: one request.
    """
    for _ in range(WARM_UP):
        took_s = sum(_run_ms(model, feed) for model in models) / 1e3
    rounds = int(min(max(BUDGET_S / max(took_s, 1e-6), ROUNDS_MIN), ROUNDS_MAX))
    timed = [[_run_ms(model, feed) for model in models] for _ in range(rounds)]
    return [statistics.median(times) for times in zip(*timed, strict=True)]


def _run_ms(model: Runner, feed: Feed) -> float:
    started = time.process_time()
    model.run(feed)
    return (time.process_time() - started) * 1e3
