"""CPU microseconds of submit, dispatch and complete of one ticket, with so many others queued."""

import gc
import time
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Final

from scheduler.core.events import Dispatch
from scheduler.core.outcome import Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.ticket import Ticket
from simulate.scenario import class_settings, core_settings
from simulate.world.backend import BackendPlan, Service

# Batches of eight at most: neither the dearest (one ticket a batch) nor the cheapest that a model allows.
SERVICE: Final = Service(0.005, 0.001, instances=1, max_batch_size=8)
PLAN: Final = BackendPlan("gpu0", {"m": SERVICE})
CLASSES: Final = (class_settings("interactive", 16, wait_s=0.05), class_settings("background", 1))


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: `cost_us` is the median of the repeats, process CPU time of a ticket.

    `deadlines` tells whether every ticket has one, in another order than that in which they come.
    """

    queued: int
    tenants: int
    deadlines: bool
    cost_us: float
    least_us: float
    most_us: float


class Loaded:
    """A core with tickets of so many tenants queued, kept at that number."""

    def __init__(self, queued: int, tenants: int, *, deadlines: bool = True) -> None:
        self.core = Scheduler(core_settings(CLASSES))
        self.core.set_backend(PLAN.state(ready=True), now=0.0)
        self.now = 0.0
        self._names = [f"tenant{number}" for number in range(tenants)]
        # No sooner than what waits is served, or each tenant has had a turn: a ticket takes 1.6 ms.
        round_s = 0.0016 * max(queued, tenants)
        self._soonest_s = {"interactive": max(0.5, 0.5 * round_s), "background": max(5.0, 3 * round_s)}
        self._deadlines = deadlines
        self._ids = count()
        self._in_flight: list[Dispatch] = []
        for _ in range(queued):
            self.submit()

    def submit(self) -> None:
        """One more ticket, of the next tenant in turn; every fourth is interactive."""
        number = next(self._ids)
        priority_class = "background" if number % 4 else "interactive"
        # Tenants and classes must not go round in step.
        tenant = self._names[number * 7 // 4 % len(self._names)]
        ticket = Ticket(number, priority_class, tenant, "m", merge_key="k")
        if self._deadlines:
            ticket.deadline = self.now + self._soonest_s[priority_class] * (1 + number * 7919 % 1000 / 500)
        self.core.submit(ticket, now=self.now)

    def advance(self) -> int:
        """What happens in one turn of the driver: a batch ends, others leave, as many tickets come as ended."""
        ended = 0
        if self._in_flight:
            batch = self._in_flight.pop(0)
            self.now += SERVICE.a_s + SERVICE.b_s * len(batch.tickets)
            ended = len(self.core.complete(batch.batch_id, Verdict.SUCCEEDED, now=self.now))
        for _ in range(ended):
            self.submit()
        self._pull()
        wakeup = self.core.next_wakeup()
        if not self._in_flight and wakeup is not None:
            self.now = wakeup
            self.core.tick(now=wakeup)
            self._pull()
        return ended

    def _pull(self) -> None:
        while (event := self.core.next_event()) is not None:
            if not isinstance(event, Dispatch):
                raise RuntimeError(  # noqa: TRY004 - what the core decided is wrong, not a type
                    f"{event} where there is room and time for every ticket"
                )
            self._in_flight.append(event)


def measure(queued: int, tenants: int, *, deadlines: bool, tickets: int, repeats: int) -> Point:
    """Let so many tickets pass, `repeats` times.

    Args:
        queued: tickets that wait all the while.
        tenants: whose they are, in turn.
        deadlines: whether each has one.
        tickets: of one repeat, at least.
        repeats: the median of so many is taken.
    """
    loaded = Loaded(queued, tenants, deadlines=deadlines)
    for _ in range(50):  # the latency line is learned, batches have their size
        loaded.advance()
    costs_us = sorted(_repeat(loaded, tickets) for _ in range(repeats))
    return Point(queued, tenants, deadlines, median(costs_us), costs_us[0], costs_us[-1])


def _repeat(loaded: Loaded, tickets: int) -> float:
    gc.collect()
    passed = 0
    began_ns = time.process_time_ns()
    while passed < tickets:
        passed += loaded.advance()
    return (time.process_time_ns() - began_ns) / 1000 / passed
