"""The next batch of a lane: whose turn it is, where it goes, whether it is kept back, and who rides in it.

Whoever could not end in time any more is evicted when his turn comes, or when he would ride (feasibility.py). A batch
that could be overtaken is kept back where it would only lie ready at the backend (limit.py), or slow down a more
important model (concurrency.py).
"""

from scheduler.core import batch as batching
from scheduler.core.admission import Admission
from scheduler.core.backend import Backend
from scheduler.core.batch_size import most_rows
from scheduler.core.departure import Departure
from scheduler.core.endings import Endings
from scheduler.core.events import Dispatch
from scheduler.core.fleet import Fleet
from scheduler.core.lane import Lane, Turn
from scheduler.core.lanes import Lanes
from scheduler.core.limit import lead_s
from scheduler.core.outcome import Outcome
from scheduler.core.settings import CoreSettings
from scheduler.core.steps import Steps
from scheduler.core.ticket import IN_FLIGHT, RETRYING, Ticket


class Dispatcher:
    """Forms batches where a backend has a place. `now` is in monotonic seconds."""

    __slots__ = ("_admission", "_endings", "_fleet", "_lanes", "_ranks", "_steps")

    def __init__(
        self, settings: CoreSettings, lanes: Lanes, fleet: Fleet, admission: Admission, steps: Steps, endings: Endings
    ) -> None:
        self._ranks = settings.ranks()
        self._lanes = lanes
        self._fleet = fleet
        self._admission = admission
        self._steps = steps
        self._endings = endings

    def dispatch(self, name: str, *, now: float) -> Dispatch | None:
        """The next batch of the lane of this name; None where none goes now."""
        lane = self._lanes.look_at(name)
        if lane is None or not (able := self._fleet.able(lane.model)):
            return None
        lane.pass_time(now=now)
        if lane.backend is not None and not (able := self._steps.able(lane, able)):
            return None
        while (turn := lane.next_turn()) is not None:
            backend = able[0] if lane.backend is not None else self._fleet.place(able, lane, turn.ticket)
            if backend is None:
                return None
            departure = self._departure(lane, backend, turn.ticket.merge_key, now)
            if departure is None or not departure.misses(turn.ticket):
                if self._keep_back(lane, turn, backend, now):
                    return None
                return self._send(lane, turn, backend, departure, now)
        return None

    def _send(self, lane: Lane, turn: Turn, backend: Backend, departure: Departure | None, now: float) -> Dispatch:
        estimator = backend.estimator(lane.model, lane.estimator)
        tickets = tuple(batching.form(lane, turn, backend.state.models[lane.model], estimator, departure))
        release, ranks = self._admission.release, self._ranks
        for ticket in tickets:
            if ticket.state is RETRYING:  # holds no place in admission
                ticket.state = IN_FLIGHT
            else:
                release(ticket, ranks[ticket.priority_class])
        if lane.backend == "":
            self._steps.bind(turn.ticket, backend.name)
        batch = self._fleet.start(lane, backend, tickets, turn.queue, now=now)
        return Dispatch(batch.batch_id, backend.name, tickets)

    def _departure(self, lane: Lane, backend: Backend, merge_key: str | None, now: float) -> Departure | None:
        """When the next batch of this key would start there; None where nobody has a deadline."""
        if not self._endings.deadlines.watches:
            return None
        start_at = now
        if not backend.has_idle_instance(lane.model):
            start_at = max(start_at, backend.next_free_at(lane.model))
        capacity = backend.state.models[lane.model]
        estimator = backend.estimator(lane.model, lane.estimator)

        def waiting(ticket: Ticket) -> int:
            beside = sum(queue.waiting_of(merge_key) for queue in lane.classes)
            queue = lane.classes[self._ranks[ticket.priority_class]]
            return max(ticket.rows, min(most_rows(queue, capacity, estimator, merge_key), beside))

        def evict(ticket: Ticket) -> None:
            self._endings.evict(ticket, Outcome.DEADLINE_INFEASIBLE, now=now)

        return Departure(start_at, estimator.line(merge_key), max(1, capacity.max_batch_size), waiting, evict)

    def _keep_back(self, lane: Lane, turn: Turn, backend: Backend, now: float) -> bool:
        """Whether the next batch could be overtaken, and is therefore kept back."""
        queue = turn.queue
        known = backend.estimator(lane.model, lane.estimator).knows(None)
        own_s = queue.own_wait_s if known else None
        if queue.above_wait_s is None and own_s is None:
            return False
        if backend.crowded(lane.model, queue.rank, now=now):
            self._lanes.yielding[lane.name] = None
            return True
        waits_s = [each for each in (queue.present_wait_s, own_s) if each is not None]
        if not waits_s or backend.has_idle_instance(lane.model):
            return False
        wait_s = min(waits_s)
        leave_at = backend.next_free_at(lane.model) - lead_s(wait_s)
        if leave_at <= now:
            return False
        self._lanes.held[lane.name] = leave_at
        return True
