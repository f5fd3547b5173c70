"""Latency: how long one request takes on one thread, before and after, measured in turn."""

import statistics
import time
from typing import Final

from export.definition import Feed
from export.session import Session

BATCH_ROWS: Final = (1, 8)
WARM_UP: Final = 3
ROUNDS: Final = 40


def median_ms(sessions: tuple[Session, Session], feed: Feed, rounds: int = ROUNDS) -> tuple[float, float]:
    """Median latency of two models on the same feed, in milliseconds.

    They run in turn, so that what else the machine does strikes both alike.

    Args:
        sessions: opened with one thread each.
        feed: one request.
        rounds: runs of each.
    """
    for _ in range(WARM_UP):
        for session in sessions:
            session.run(feed)
    timed = [(_run_ms(sessions[0], feed), _run_ms(sessions[1], feed)) for _ in range(rounds)]
    return statistics.median(first for first, _ in timed), statistics.median(second for _, second in timed)


def _run_ms(session: Session, feed: Feed) -> float:
    started = time.perf_counter()
    session.run(feed)
    return (time.perf_counter() - started) * 1e3
