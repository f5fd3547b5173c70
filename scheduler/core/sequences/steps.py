"""Steps of stateful sequences on their way through the queues (sequence.py has the order within a sequence).

The current step of a sequence stands in the lane of its model on its backend, or, as a start that has no backend yet,
in that of all such starts: it is given one when its turn comes and there is a slot for it. Those behind it stand in no
lane, and count for their tenant all the same. What is lost with a step is handed back, to be evicted: none ends here.
"""

from scheduler.core.admission.bounds import Refusal
from scheduler.core.backends.backend import Backend, BackendState, ModelCapacity
from scheduler.core.backends.fleet import Fleet
from scheduler.core.backends.placement import home
from scheduler.core.outcome import Outcome
from scheduler.core.queues.lane import Lane, lane_name
from scheduler.core.queues.lanes import Lanes
from scheduler.core.sequences.sequence import Sequence, Sequences
from scheduler.core.settings import CoreSettings
from scheduler.core.tenants.caps import Tenant, holder_of
from scheduler.core.ticket import QUEUED, Ticket


class Steps:
    """Every sequence, and where its steps wait. `now` is in monotonic seconds.

    Attributes:
        sequences: those that are known.
        short: models of which a start was kept waiting because no backend had a slot.
    """

    __slots__ = ("_fleet", "_lanes", "_most", "_ranks", "sequences", "short")

    def __init__(self, settings: CoreSettings, lanes: Lanes, fleet: Fleet) -> None:
        self._ranks = settings.ranks()
        self._lanes = lanes
        self._fleet = fleet
        self.sequences = Sequences()
        self.short: dict[str, None] = {}
        self.reconfigure(settings)

    def reconfigure(self, settings: CoreSettings) -> None:
        """Go on with this bound; what is known stays."""
        self._most = settings.max_sequences

    def gap(self, ticket: Ticket, tenant: Tenant, *, now: float) -> Refusal | None:
        """Why a step may not come now; None for any other ticket."""
        if ticket.step is None:
            return None
        refusal = self.sequences.refusal(ticket, tenant.name, self._most, now=now)
        self._wake_starts()  # it may have found one that was idle for too long
        return refusal

    def lane_name(self, ticket: Ticket) -> str:
        """The lane in which a step that arrives now would wait."""
        sequence = self.sequences.of(ticket)
        return lane_name(ticket.model, "" if sequence is None else sequence.backend)

    def able(self, lane: Lane, able: list[Backend]) -> list[Backend]:
        """Of the backends that take a batch of the lane's model, those that take the lane's next step, best first."""
        if lane.backend:
            return [each for each in able if each.name == lane.backend]
        bound = self.sequences.by_backend(lane.model)
        free = [each for each in able if _has_slot(each.state.models[lane.model], bound.get(each.name, 0))]
        if free:
            return [home(free, lane.model, bound)]
        if any(queue.queued for queue in lane.classes):
            self.short[lane.model] = None
        return []

    def bind(self, ticket: Ticket, backend: str) -> None:
        """A start is sent to this backend: its sequence has a slot there from now on."""
        sequence = self.sequences.of(ticket)
        assert sequence is not None
        self.sequences.bind(sequence, backend)

    def next_wakeup(self) -> float:
        """When `look_for_slots` may next find one, monotonic seconds; to be asked while some are `short`."""
        return self.sequences.next_idle()

    def look_for_slots(self, *, now: float) -> None:
        """Forget what was idle for too long, as the backends have, and let the starts that wait for a slot try."""
        if self.sequences.next_idle() <= now:
            self.sequences.forget_idle(now=now)
            self._wake_starts()

    def _wake_starts(self) -> None:
        for model in self.short:
            self._lanes.runnable[lane_name(model, "")] = None
        self.short.clear()

    def is_current(self, ticket: Ticket) -> bool:
        """Whether a step stands in its lane, and not behind another step."""
        sequence = self.sequences.of(ticket)
        return sequence is not None and sequence.current is ticket

    def join(self, ticket: Ticket, tenant: Tenant, *, now: float) -> None:
        """Queue a step that was let in."""
        ticket.state = QUEUED
        ticket.holder = tenant
        if self.sequences.join(ticket, now=now):
            self._enter_lane(ticket, now)
        else:
            count_behind(ticket, 1)

    def ended(self, ticket: Ticket, outcome: Outcome, *, now: float) -> list[Ticket]:
        """A step that was let in has ended; returns those that are lost with it: they would come after a gap."""
        if outcome is Outcome.COMPLETED or outcome is Outcome.FAILED:
            return []
        if not ticket.batch_id:
            return self.leave(ticket, answered=False, now=now)
        return self.sequences.unanswered(ticket)  # its place is free when its batch ends

    def leave(self, ticket: Ticket, *, answered: bool, now: float) -> list[Ticket]:
        """The sequence's current step is gone from the queue or from the backend: the next may come.

        Returns:
            Those that are lost with it.
        """
        lost = [] if answered else self.sequences.unanswered(ticket)
        following = self.sequences.leave(ticket, answered=answered, now=now)
        if following is not None:
            count_behind(following, -1)
            self._enter_lane(following, now)
        return lost

    def lose(self, state: BackendState) -> list[Ticket]:
        """Whose state was at a backend that does not serve it any more is lost, up to the next start."""
        lost: list[Ticket] = []
        for sequence in self.sequences:
            if sequence.backend == state.name and not (state.ready and sequence.model in state.models):
                lost += self._lose(sequence, everything=False)
        return lost

    def lose_unoffered(self) -> list[Ticket]:
        """All steps of models that no backend is expected to serve any more."""
        lost: list[Ticket] = []
        for sequence in self.sequences:
            if not self._fleet.offered(sequence.model):
                lost += self._lose(sequence, everything=True)
        return lost

    def _lose(self, sequence: Sequence, *, everything: bool) -> list[Ticket]:
        self.sequences.bind(sequence, "")
        lost = sequence.lose(everything=everything)
        if sequence.current is not None and sequence.current.state is QUEUED:
            lost.append(sequence.current)
        return lost

    def _enter_lane(self, ticket: Ticket, now: float) -> None:
        """Queue a step whose turn has come in its sequence."""
        sequence = self.sequences.of(ticket)
        assert sequence is not None
        lane = self._lanes.of(ticket.model, sequence.backend)
        ticket.lane = lane.name
        rank = self._ranks[ticket.priority_class]
        lane.heard(rank, ticket.rows, now=now)
        lane.push(ticket, rank, holder_of(ticket))
        self._lanes.runnable[lane.name] = None


def _has_slot(capacity: ModelCapacity, bound: int) -> bool:
    return capacity.sequence_slots is None or bound < capacity.sequence_slots


def count_behind(ticket: Ticket, sign: int) -> None:
    """Count a step that waits behind another of its sequence, and so in no lane, for its tenant."""
    tenant = holder_of(ticket)
    tenant.queued += sign
    tenant.queue_bytes += sign * ticket.queue_bytes
