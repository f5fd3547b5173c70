"""One model's waiting tickets: its classes, and which of them is served next.

A ticket to be tried once more goes first within its class, and its class pays for the second try: a
failed background batch of many tickets does not stand in the way of a more important arrival.

What a class pays for the batches that it rides in, and how far ahead of the others that may bring it, is told in
batch.py.

A class's `wait_s` bounds the batches of lesser classes only while the class is in use. After QUIET_S without a ticket
of it a tenth of its silence is allowed in place of `wait_s`, where that is more: whoever comes once in 30 s may wait
3 s at the most, and a class that nobody has used yet bounds nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from scheduler.core.latency.estimate import Estimator
from scheduler.core.latency.evidence import Evidence
from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.queues.flow import Flow
from scheduler.core.queues.returns import LEAST_WINDOW_S, WINDOW_PART
from scheduler.core.queues.share import VirtualTime
from scheduler.core.settings import ClassSettings
from scheduler.core.tenants.caps import Tenant
from scheduler.core.ticket import RETRYING, Ticket

# Somebody who works at a screen comes again within this time.
QUIET_S: Final = 2.0
# The part of a longer silence that whoever ends it may have to wait.
SILENCE_PART: Final = 0.1


def lane_name(model: str, backend: str | None) -> str:
    """The name of a model's lane, or of its sequences' on one backend; no model's name has a line feed."""
    return model if backend is None else f"{model}\n{backend}"


class Turn(NamedTuple):
    """The ticket that opens the next batch, with its class and its tenant's flow; a retry has none."""

    queue: ClassQueue
    flow: Flow | None
    ticket: Ticket


class Lane:
    """The queues of one model, of its sequences on one backend, or of those that have no backend yet.

    Classes share the service by weighted virtual time (share.py).

    Attributes:
        classes: queues, most important class first.
        estimator: what the model's batches cost.
        evidence: by what of that a ticket may be refused.
        backend: where its tickets have to go; None: anywhere; empty: where there is a slot for a new sequence.
        idle_at: when a ticket was last queued that found an instance idle, and nothing waiting, monotonic seconds;
            infinite before the first; told by arrivals.py.
        name: tells it from the model's other lanes.
        gather_until: until when a batch is gathered here that Triton would wait to fill, monotonic seconds; None: none
            is.
    """

    __slots__ = (
        "backend",
        "classes",
        "estimator",
        "evidence",
        "gather_until",
        "idle_at",
        "model",
        "name",
        "virtual",
    )

    def __init__(self, model: str, classes: Sequence[ClassSettings], backend: str | None = None) -> None:
        self.model = model
        self.backend = backend
        self.name = lane_name(model, backend)
        self.classes = tuple(ClassQueue(self.name, settings, rank) for rank, settings in enumerate(classes))
        self.estimator = Estimator()
        self.evidence = Evidence(self.estimator)
        self.idle_at = inf
        self.virtual = VirtualTime()
        self.gather_until: float | None = None
        self._tell_above()

    def push(self, ticket: Ticket, rank: int, tenant: Tenant) -> None:
        """Queue a ticket in the class of this rank."""
        queue = self.classes[rank]
        self._join(queue)
        queue.push(ticket, tenant)

    def retry(self, ticket: Ticket, rank: int) -> None:
        """Line up a ticket of a failed batch to be tried alone."""
        queue = self.classes[rank]
        self._join(queue)
        ticket.state = RETRYING
        queue.retries.append(ticket)

    def heard(self, rank: int, rows: int, *, now: float) -> None:
        """A ticket of the class of this rank has come, `now` in monotonic seconds."""
        queue = self.classes[rank]
        queue.heard_at = now
        queue.returns.arrived(rows, now=now)

    def answered(self, tickets: Sequence[Ticket], ranks: Mapping[str, int], *, now: float) -> None:
        """Tickets of one batch were answered: whoever comes back at once may ride in the next (returns.py)."""
        merge_key = tickets[0].merge_key
        if merge_key is None:
            return
        window_s = WINDOW_PART * self.estimator.line(tickets[0].latency_key).predict(1)
        if window_s < LEAST_WINDOW_S:
            return
        for name in {each.priority_class for each in tickets}:
            of_class = [each for each in tickets if each.priority_class == name]
            rows, tenants = sum([each.rows for each in of_class]), {each.tenant for each in of_class}
            self.classes[ranks[name]].returns.answered(rows, merge_key, tenants, window_s, now=now)

    def pass_time(self, *, now: float) -> None:
        """Tell each class how long those above it would have to wait for its batches, as they are in use now."""
        tightest_s: float | None = None
        for queue in self.classes:
            queue.present_wait_s, wait_s = tightest_s, queue.settings.wait_s
            if wait_s is None or queue.heard_at is None:
                continue
            silence_s = now - queue.heard_at
            if silence_s > QUIET_S and not queue.queued:
                wait_s = max(wait_s, SILENCE_PART * silence_s)
            if tightest_s is None or wait_s < tightest_s:
                tightest_s = wait_s

    @property
    def waits(self) -> bool:
        """Whether a ticket waits here."""
        return any(queue.queued for queue in self.classes)

    def calm(self, *, now: float) -> bool:
        """Whether nobody waits here in the place of a more important class that minds, and is in use."""
        self.pass_time(now=now)
        return not any(
            queue.queued and queue.above_wait_s is not None and queue.present_wait_s == queue.above_wait_s
            for queue in self.classes
        )

    def next_turn(self, above: int | None = None) -> Turn | None:
        """Whose turn it is: the class with the least start tag, then its first flow.

        Ties go to a strict class, then to the more important one.

        Args:
            above: only classes that are more important than this rank; None: all.
        """
        best: ClassQueue | None = None
        best_flow: Flow | None = None
        best_ticket: Ticket | None = None
        for queue in self.classes[:above]:
            ticket = queue.next_retry() if queue.retries else None
            flow: Flow | None = None
            if ticket is None:
                found = queue.first() if queue.queued else None
                if found is None:
                    queue.blocked = queue.queued > 0
                    continue
                flow, ticket = found
            if queue.blocked:
                # No credit for the time in which all its tenants were at their caps.
                queue.blocked = False
                self.virtual.join(queue)
            if (
                best is None
                or queue.start < best.start
                or (queue.start == best.start and queue.weight == inf > best.weight)
            ):
                best, best_flow, best_ticket = queue, flow, ticket
        return None if best is None or best_ticket is None else Turn(best, best_flow, best_ticket)

    def follow(self) -> None:
        """V goes to the least tag of those that wait: a strict class's turns do not move it, and others ride in them.

        Otherwise who comes next would start as far behind the others as the rides have brought them ahead.
        """
        least = min((each.start for each in self.classes if each.waits and each.weight < inf), default=0.0)
        self.virtual.now = max(self.virtual.now, least)

    def reconfigure(self, classes: Sequence[ClassSettings]) -> None:
        """Go on with these settings of the same classes, most important first."""
        for queue, settings in zip(self.classes, classes, strict=True):
            queue.reconfigure(settings)
            self.virtual.join(queue)  # no credit for a time in which its weight was another
        self._tell_above()

    def waiting(self) -> Iterator[Ticket]:
        """Every ticket that waits here, retries included."""
        for queue in self.classes:
            yield from queue

    def _tell_above(self) -> None:
        tightest_s: float | None = None
        for queue in self.classes:
            queue.above_wait_s = queue.present_wait_s = tightest_s
            own_s = queue.settings.wait_s
            if own_s is not None and (tightest_s is None or own_s < tightest_s):
                tightest_s = own_s

    def _join(self, queue: ClassQueue) -> None:
        if not queue.queued and not queue.backlogged:
            if not any(other.backlogged for other in self.classes):
                self.virtual.rest()
            self.virtual.join(queue)
