"""What is known well enough of a model's times to refuse a request by.

A request is refused for its own length only where even the fastest of the last SEEN batches like it would have been
too late. Where the next one is as likely to stand at any place among them (they are exchangeable: nothing distinguishes
it), it is faster than all of them with probability 1 / (SEEN + 1), one in twenty. A mean would say nothing of the kind:
that of two cold runs of 6 s and many of 5 ms is exceeded by nearly none of those that follow.

Batches are alike that have one merge key, so one shape, and sizes that are no more than EXTENT times apart; or, where
the operator says what a request's cost is (`models.NAME.cost`), costs that are. Their times are compared by what the
learned line (estimate.py) says of their sizes: its level cancels, however wrong it is. What was never seen is not
known, and what is unknown is tried.

The averages that decide between tickets that wait (feasibility.py) need no such certainty: KNOWN batches are enough.

What was seen is forgotten after FORGET_S, or twice the time that so many batches take where that is longer. And since
the other contents of a shape may be faster than those that keep the server busy, one request that would be refused for
its length is tried all the same, as often as such tries take no more than one part in SEEN + 1 of an instance's time.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from math import inf
from typing import Final

from scheduler.core.latency.estimate import MAX_LINES, Estimator, LatencyLine
from scheduler.core.ticket import Ticket

SEEN: Final = 19
KNOWN: Final = 5
EXTENT: Final = 2
FORGET_S: Final = 60.0


class _Window:
    """The last SEEN batches of one kind; `sizes` are rows, or costs. Times in seconds, `now` monotonic."""

    __slots__ = ("_batches", "_ends", "_fastest", "_largest", "_smallest", "try_at")

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=SEEN)
        self._batches: deque[tuple[int, float]] = deque(maxlen=SEEN)
        # Of the line, what the fastest took; 0: not worked out since the last one ended.
        self._fastest = 0.0
        self._smallest = self._largest = 0
        self.try_at = -inf

    def add(self, size: int, service_s: float, *, now: float) -> None:
        """A batch has ended."""
        self._ends.append(now)
        self._batches.append((size, service_s))
        self._fastest = 0.0

    def fastest_s(self, line: LatencyLine, size: int, *, now: float) -> float:
        """What a batch of this size takes at least; 0: not known."""
        if len(self._ends) < SEEN:
            return 0.0
        if not self._fastest:
            self._fastest = min([service_s / line.predict(seen) for seen, service_s in self._batches])
            sizes = [seen for seen, _ in self._batches]
            self._smallest, self._largest = min(sizes), max(sizes)
        if not self._smallest <= EXTENT * size or not size <= EXTENT * self._largest:
            return 0.0
        fastest_s = self._fastest * line.predict(size)
        return fastest_s if now - self._ends[0] <= max(FORGET_S, 2 * SEEN * fastest_s) else 0.0


class Evidence:
    """What was seen of one model's batches lately, on all backends together. `now` is in monotonic seconds.

    Args:
        estimator: the model's lines, which have learned a batch before it is told here.
    """

    __slots__ = ("_by_cost", "_by_key", "_costs", "_estimator", "_model")

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._by_key: OrderedDict[str, _Window] = OrderedDict()
        self._by_cost = _Window()
        self._costs = LatencyLine()
        # Of any key: parts of what its own line says.
        self._model: deque[tuple[float, float, float]] = deque(maxlen=SEEN)

    def learn(self, merge_key: str | None, rows: int, cost: int | None, service_s: float, *, now: float) -> None:
        """A batch of these rows, and this cost in all, has been answered."""
        self._model.append((now, service_s, service_s / self._estimator.line(merge_key).predict(rows)))
        if cost is not None:
            self._costs.learn(cost, service_s)
            self._by_cost.add(cost, service_s, now=now)
        elif merge_key is not None:
            window = self._by_key.get(merge_key)
            if window is None:
                window = self._by_key[merge_key] = _Window()
                if len(self._by_key) > MAX_LINES:
                    self._by_key.popitem(last=False)
            else:
                self._by_key.move_to_end(merge_key)
            window.add(rows, service_s, now=now)

    def known(self, least: int, *, now: float) -> bool:
        """Whether so many batches of the model were seen lately; no more than SEEN are counted."""
        seen = self._model
        if len(seen) < least:
            return False
        ended_at, service_s, _ = seen[-least]
        return now - ended_at <= max(FORGET_S, 2 * SEEN * service_s)

    def least_part(self) -> float:
        """The least part of what their lines say that the last SEEN batches took; at most 1."""
        return min([1.0, *[part for _, _, part in self._model]])

    def fastest_s(self, ticket: Ticket, rows: int, *, now: float) -> float:
        """Seconds that a batch of so many rows with this ticket takes at least; 0: not known."""
        if ticket.cost is not None:
            return self._by_cost.fastest_s(self._costs, ticket.cost, now=now)
        window = None if ticket.latency_key is None else self._by_key.get(ticket.latency_key)
        return 0.0 if window is None else window.fastest_s(self._estimator.line(ticket.latency_key), rows, now=now)

    def expected_s(self, ticket: Ticket) -> float | None:
        """Seconds that the ticket takes by itself, on average; None where nothing like it was seen."""
        by_cost_s = self.cost_s(ticket.cost)
        if by_cost_s is not None or not self._estimator.knows(ticket.latency_key):
            return by_cost_s
        return self._estimator.line(ticket.latency_key).predict(ticket.rows)

    def cost_s(self, cost: int | None) -> float | None:
        """Seconds that a batch of this cost takes on average; None where nothing was learned by cost."""
        return None if cost is None or not self._costs.samples else self._costs.predict(cost)

    def try_one(self, ticket: Ticket, *, now: float) -> bool:
        """Whether this ticket, which would be refused for its own length, is tried all the same; marks it then."""
        window = self._by_cost if ticket.cost is not None else self._by_key.get(ticket.latency_key or "")
        if window is None or now < window.try_at:
            return False
        window.try_at = now + (SEEN + 1) * (self.expected_s(ticket) or 0.0)
        ticket.tried = True
        return True


def cost_of(tickets: Iterable[Ticket]) -> int | None:
    """Of a batch of these tickets; None where that of one is not known."""
    cost = 0
    for ticket in tickets:
        if ticket.cost is None:
            return None
        cost += ticket.cost
    return cost
