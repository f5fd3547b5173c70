"""Latency: what one request costs on one thread, for several models in turn."""

import statistics
import time
from collections.abc import Sequence
from typing import Final

from export.card import Measure
from export.definition.tensor import Feed
from export.inference.session import Session
from quantize.tasks.task import Runner

WARM_UP: Final = 2
ROUNDS_MIN: Final = 5
ROUNDS_MAX: Final = 40
# Of one shape, all models together; shapes that take longer get fewer rounds.
BUDGET_S: Final = 4.0
# Two measurements of one model on a busy machine differ by this much.
TIE: Final = 0.05
# Below which part of FP32's size an INT8 form is a smaller one: a few constants more or less are nobody's reason.
SMALLER: Final = 0.99


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


def speed_up(fp32: Measure, int8: Measure) -> float:
    """How many times faster INT8 is: the geometric mean over the shapes."""
    return statistics.geometric_mean([before / int8.latency_ms[shape] for shape, before in fp32.latency_ms.items()])


def slower(fp32: Measure, int8: Measure) -> str | None:
    """By how much INT8 is slower than FP32, in words; None where it is not, or where that may be chance."""
    longer = 1 / speed_up(fp32, int8)
    if longer <= 1 + TIE:
        return None
    shapes = ", ".join(f"{shape}: {int8.latency_ms[shape] / before:.2f}" for shape, before in fp32.latency_ms.items())
    return (
        f"INT8 takes {longer:.2f} times as long as FP32 on this processor ({shapes}); it is served all the same, with "
        f"{int8.size_bytes / fp32.size_bytes:.2f} of the size"
    )


def gainless(fp32: Measure, int8: Measure) -> str | None:
    """Why nobody could want INT8 here: it is no faster by more than chance, and no smaller. None where it is."""
    longer, larger = 1 / speed_up(fp32, int8), int8.size_bytes / fp32.size_bytes
    if longer < 1 / (1 + TIE) or larger < SMALLER:
        return None
    return f"INT8 takes {longer:.2f} times as long as FP32 on this processor, with {larger:.2f} of the size"


def _run_ms(model: Runner, feed: Feed) -> float:
    # All outputs, as they are: the first may be words, of which no numbers are made.
    run = model.predict if isinstance(model, Session) else model.run
    started = time.process_time()
    run(feed)
    return (time.process_time() - started) * 1e3
