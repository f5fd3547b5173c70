"""Steps of stateful sequences on their way through the queues (sequence.py has the order within a sequence).

The current step of a sequence stands in the lane of its model on its backend; those behind it stand in no lane, and
count for their tenant all the same. What is lost with a step is handed back, to be evicted: nothing ends here.
"""

from scheduler.core.admission import Refusal
from scheduler.core.backend import BackendState
from scheduler.core.caps import Tenant
from scheduler.core.fleet import Fleet
from scheduler.core.lane import lane_name
from scheduler.core.lanes import Lanes
from scheduler.core.outcome import Outcome
from scheduler.core.sequence import Sequence, Sequences
from scheduler.core.settings import CoreSettings
from scheduler.core.ticket import QUEUED, Ticket, holder_of


class Steps:
    """Every sequence, and where its steps wait. `now` is in monotonic seconds.

    Attributes:
        sequences: those that are known.
    """

    __slots__ = ("_fleet", "_lanes", "_most", "_ranks", "sequences")

    def __init__(self, settings: CoreSettings, lanes: Lanes, fleet: Fleet) -> None:
        self._ranks = settings.ranks()
        self._lanes = lanes
        self._fleet = fleet
        self.sequences = Sequences()
        self.reconfigure(settings)

    def reconfigure(self, settings: CoreSettings) -> None:
        """Go on with this bound; what is known stays."""
        self._most = settings.max_sequences

    def gap(self, ticket: Ticket, *, now: float) -> Refusal | None:
        """Why a step may not come now; None for any other ticket."""
        return None if ticket.step is None else self.sequences.refusal(ticket, self._most, now=now)

    def lane_name(self, ticket: Ticket) -> str:
        """The lane in which a step that arrives now would wait."""
        sequence = self.sequences.of(ticket)
        return lane_name(ticket.model, "" if sequence is None else sequence.backend)

    def is_current(self, ticket: Ticket) -> bool:
        """Whether a step stands in its lane, and not behind another step."""
        sequence = self.sequences.of(ticket)
        return sequence is not None and sequence.current is ticket

    def join(self, ticket: Ticket, tenant: Tenant, *, now: float) -> None:
        """Queue a step that was let in."""
        ticket.state = QUEUED
        ticket.holder = tenant
        if self.sequences.join(ticket, now=now):
            self._enter_lane(ticket)
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
            self._enter_lane(following)
        return lost

    def lose(self, state: BackendState) -> list[Ticket]:
        """Whose state was at a backend that does not serve it any more is lost, up to the next start."""
        lost: list[Ticket] = []
        for sequence in self.sequences:
            model = sequence.model
            if sequence.backend in ("", state.name) and not (state.ready and model in state.models):
                lost += self._lose(sequence, everything=not self._fleet.offered(model))
        return lost

    def _lose(self, sequence: Sequence, *, everything: bool) -> list[Ticket]:
        self.sequences.bind(sequence, "")
        lost = sequence.lose(everything=everything)
        if sequence.current is not None and sequence.current.state is QUEUED:
            lost.append(sequence.current)
        return lost

    def _enter_lane(self, ticket: Ticket) -> None:
        """Queue a step whose turn has come in its sequence; a start is given its backend here."""
        sequence = self.sequences.of(ticket)
        assert sequence is not None
        if not sequence.backend:
            self.sequences.bind(sequence, self._fleet.home(ticket.model, self.sequences.by_backend(ticket.model)))
        lane = self._lanes.of(ticket.model, sequence.backend)
        ticket.lane = lane.name
        lane.push(ticket, self._ranks[ticket.priority_class], holder_of(ticket))
        self._lanes.runnable[lane.name] = None


def count_behind(ticket: Ticket, sign: int) -> None:
    """Count a step that waits behind another of its sequence, and so in no lane, for its tenant."""
    tenant = holder_of(ticket)
    tenant.queued += sign
    tenant.queue_bytes += sign * ticket.queue_bytes
