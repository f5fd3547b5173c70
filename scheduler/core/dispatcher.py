"""The next batch of a lane: whose turn it is, where it goes, whether it is kept back, and who rides in it.

Whoever could not end in time any more is evicted when his turn comes, or when he would ride (feasibility.py). A batch
that could be overtaken is kept back where it would only lie ready at the backend (limit.py), or slow down a more
important model (concurrency.py).
"""

from typing import Final

from scheduler.core.admission.bounds import Admission
from scheduler.core.admission.feasibility import crowded
from scheduler.core.backends.backend import Backend
from scheduler.core.backends.executions import Execution
from scheduler.core.backends.fleet import Fleet
from scheduler.core.backends.limit import lead_s
from scheduler.core.batching import batch as batching
from scheduler.core.batching.batch_size import FREE, most_rows
from scheduler.core.batching.departure import Departure
from scheduler.core.endings import Endings
from scheduler.core.events import Dispatch
from scheduler.core.latency.estimate import KNOWN_SAMPLES, Estimator
from scheduler.core.latency.evidence import KNOWN, SEEN
from scheduler.core.outcome import Outcome
from scheduler.core.queues.lane import Lane, Turn
from scheduler.core.queues.lanes import Lanes
from scheduler.core.queues.returns import GAIN, WINDOW_PART
from scheduler.core.sequences.steps import Steps
from scheduler.core.settings import CoreSettings
from scheduler.core.ticket import IN_FLIGHT, RETRYING, Ticket

# Batches that are shorter are not held in order to grow: a timer is a part of a millisecond late.
LEAST_HELD_S: Final = 0.005
# Of a model's queue delay, what a request may wait here in addition.
GATHERED_PART: Final = 0.1


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
        if lane is None:
            return None
        able = self._able(lane, self._fleet.able(lane.model))
        joinable: list[Backend] = []
        if not able or self._fleet.delays(lane.model):
            joinable = self._able(lane, self._fleet.joinable(lane.model))
        if not able and not joinable:
            return None
        lane.pass_time(now=now)
        above: int | None = None
        while (turn := lane.next_turn(above)) is not None:
            backend, into = self._to_join(lane, turn, joinable)
            if backend is None:
                backend = self._to_open(lane, turn, able)
            if backend is None:
                # Who is more important may have a place where this class has none.
                above = turn.queue.rank
                continue
            departure = self._departure(lane, backend, turn, now)
            if departure is None or not departure.misses(turn.ticket, 0 if into is None else into.rows):
                beside = 0 if into is None else into.rows
                if self._gather(lane, turn, backend, beside, now) or (
                    into is None and self._keep_back(lane, turn, backend, now)
                ):
                    return None
                return self._send(lane, turn, backend, departure, into, now)
        return None

    def _to_open(self, lane: Lane, turn: Turn, able: list[Backend]) -> Backend | None:
        """Where the ticket opens an execution; None: nowhere, for now."""
        if self._fleet.streams(lane.model):
            able = [each for each in able if each.has_place(lane.model, turn.queue.rank)]
        if not able:
            return None
        return able[0] if lane.backend is not None else self._fleet.place(able, lane, turn.ticket)

    def _able(self, lane: Lane, able: list[Backend]) -> list[Backend]:
        return able if lane.backend is None or not able else self._steps.able(lane, able)

    def _to_join(self, lane: Lane, turn: Turn, joinable: list[Backend]) -> tuple[Backend | None, Execution | None]:
        """Where an execution lies ready that the ticket may join, and that execution."""
        for backend in joinable:
            into = backend.ready(turn.ticket)
            if into is not None and into.rows + turn.ticket.rows <= self._room(lane, turn, backend, into):
                return backend, into
        return None, None

    def _room(self, lane: Lane, turn: Turn, backend: Backend, into: Execution) -> int:
        """Rows that the execution may have with a batch of this class in it, as if it were one batch (batch.py)."""
        estimator, key = backend.estimator(lane.model, lane.estimator), turn.ticket.latency_key
        most = most_rows(turn.queue, backend.state.models[lane.model], estimator, key)
        if into.rank < turn.queue.rank and lane.classes[into.rank].settings.wait_s is not None:
            most = min(most, estimator.rows_for_free(key, into.rank_rows, FREE))
        return most

    def _send(
        self,
        lane: Lane,
        turn: Turn,
        backend: Backend,
        departure: Departure | None,
        into: Execution | None,
        now: float,
    ) -> Dispatch:
        estimator = backend.estimator(lane.model, lane.estimator)
        room = None if into is None else (into.rows, self._room(lane, turn, backend, into))
        tickets = tuple(batching.form(lane, turn, backend.state.models[lane.model], estimator, departure, room))
        release, ranks = self._admission.release, self._ranks
        for ticket in tickets:
            if ticket.state is RETRYING:  # holds no place in admission
                ticket.state = IN_FLIGHT
            else:
                release(ticket, ranks[ticket.priority_class])
        if lane.backend == "":
            self._steps.bind(turn.ticket, backend.name)
        batch = self._fleet.start(lane, backend, tickets, turn.queue, now=now, into=into)
        return Dispatch(batch.batch_id, backend.name, tickets)

    def _departure(self, lane: Lane, backend: Backend, turn: Turn, now: float) -> Departure | None:
        """When the next batch would start there; None where nobody has a deadline, or little is known."""
        evidence, key = lane.evidence, turn.ticket.latency_key
        if not self._endings.deadlines.watches or not evidence.known(KNOWN, now=now):
            return None
        model, capacity = lane.model, backend.state.models[lane.model]
        estimator = backend.estimator(model, lane.estimator)
        idle, overloaded = backend.has_idle_instance(model), crowded(lane, now=now)
        start_at = now if idle else max(now, backend.next_free_at(model))

        def waiting(ticket: Ticket) -> int:
            beside = sum(queue.waiting_of(ticket.merge_key) for queue in lane.classes)
            queue = lane.classes[self._ranks[ticket.priority_class]]
            return max(ticket.rows, min(most_rows(queue, capacity, estimator, key), beside))

        def earliest_end(ticket: Ticket, rows: int) -> float:
            fastest_s = evidence.fastest_s(ticket, rows, now=now)
            return max(now, backend.next_free_at(model, evidence.least_part())) + fastest_s

        def evict(ticket: Ticket) -> None:
            self._endings.evict(ticket, Outcome.DEADLINE_INFEASIBLE, now=now)

        # Whoever gives way does so to others of its class: what lesser ones do says nothing of it.
        others_wait = turn.queue.queued > max(1, backend.spare(model))
        spared = not (overloaded and others_wait) if idle else not (others_wait or evidence.known(SEEN, now=now))
        return Departure(
            start_at,
            estimator.line(key),
            max(1, capacity.max_batch_size),
            waiting,
            evict,
            None if spared else earliest_end,
            crowded=others_wait and lane.estimator.knows(key),
        )

    def _gather(self, lane: Lane, turn: Turn, backend: Backend, beside: int, now: float) -> bool:
        """Whether the next batch is kept until it is as large as Triton would wait for, for a part of that wait.

        One call with many rows costs less than many calls that Triton makes one execution of.
        """
        capacity, key = backend.state.models[lane.model], turn.ticket.merge_key
        if not capacity.delayed_below or key is None or turn.flow is None:
            return False
        if beside + sum([queue.waiting_of(key) for queue in lane.classes]) < capacity.delayed_below:
            if lane.gather_until is None:
                lane.gather_until = now + GATHERED_PART * capacity.queue_delay_s
            if now < lane.gather_until:
                self._lanes.held[lane.name] = lane.gather_until
                return True
        lane.gather_until = None
        return False

    def _keep_back(self, lane: Lane, turn: Turn, backend: Backend, now: float) -> bool:
        """Whether the next batch could be overtaken, or could still grow, and is therefore kept back."""
        queue, estimator = turn.queue, backend.estimator(lane.model, lane.estimator)
        own_s = queue.own_wait_s if estimator.knows(None) else None
        overtaken = queue.above_wait_s is not None or own_s is not None
        if overtaken and backend.crowded(lane.model, queue.rank, now=now):
            self._lanes.yielding[lane.name] = None
            return True
        capacity = backend.state.models[lane.model]
        if capacity.delayed_below or capacity.streams:
            return False
        if backend.has_idle_instance(lane.model):
            returns = queue.returns
            return self._await_returns(lane, turn, backend, estimator, returns.until, returns.expected(), now)
        waits_s = [each for each in (queue.present_wait_s, own_s) if each is not None]
        if self._may_grow(lane, turn, backend, estimator):
            waits_s.append(estimator.line(turn.ticket.latency_key).predict(1))
        if not waits_s:
            return False
        free_at = backend.next_free_at(lane.model)
        leave_at = free_at - lead_s(min(waits_s))
        if leave_at <= now:
            window_s = WINDOW_PART * estimator.line(turn.ticket.latency_key).predict(1)
            expected = queue.returns.part * backend.rows_in_flight(lane.model, turn.ticket.merge_key)
            return self._await_returns(lane, turn, backend, estimator, free_at + window_s, expected, now)
        self._lanes.held[lane.name] = leave_at
        return True

    def _await_returns(
        self, lane: Lane, turn: Turn, backend: Backend, estimator: Estimator, until: float, expected: float, now: float
    ) -> bool:
        """Whether the next batch waits for rows that are expected back until then (returns.py)."""
        key, queue, flow = turn.ticket.merge_key, turn.queue, turn.flow
        if now >= until or expected < 1 or flow is None or key is None:
            return False
        if key != queue.returns.merge_key or flow.tenant.name not in queue.returns.tenants:
            return False
        line = estimator.line(turn.ticket.latency_key)
        most = most_rows(queue, backend.state.models[lane.model], estimator, turn.ticket.latency_key)
        rows = min(most, sum([each.waiting_of(key) for each in lane.classes]))
        more = min(most, rows + expected)
        waited_s = until - max(now, backend.next_free_at(lane.model))
        if more * line.predict(rows) < GAIN * rows * (line.predict(int(more)) + waited_s):
            return False
        deadline = self._endings.deadlines.next_deadline()
        if deadline is not None and deadline < until + 2 * line.predict(most):
            return False
        self._lanes.held[lane.name] = until
        return True

    @staticmethod
    def _may_grow(lane: Lane, turn: Turn, backend: Backend, estimator: Estimator) -> bool:
        """Whether others may come to ride in the next batch while all instances are busy for long enough."""
        key, latency_key = turn.ticket.merge_key, turn.ticket.latency_key
        line = estimator.line(latency_key)
        if key is None or turn.flow is None or line.samples < KNOWN_SAMPLES or line.predict(1) < LEAST_HELD_S:
            return False
        waiting = sum([queue.waiting_of(key) for queue in lane.classes])
        return waiting < most_rows(turn.queue, backend.state.models[lane.model], estimator, latency_key)
