"""What the scheduler knows of one request: everything it decides by, and no tensors."""

from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

from scheduler.core.rate import Charge


class TicketState(Enum):
    """Where a ticket is. It moves only forward, but for RETRYING, which goes back to IN_FLIGHT."""

    NEW = "new"
    QUEUED = "queued"
    IN_FLIGHT = "in_flight"
    RETRYING = "retrying"
    ENDED = "ended"


# Reading a member through its class costs a call of the metaclass, some twenty times a ticket.
NEW: Final = TicketState.NEW
QUEUED: Final = TicketState.QUEUED
IN_FLIGHT: Final = TicketState.IN_FLIGHT
RETRYING: Final = TicketState.RETRYING
ENDED: Final = TicketState.ENDED


@dataclass(frozen=True, slots=True)
class Step:
    """What makes a request one step of a stateful sequence (sequence.py).

    Attributes:
        sequence_id: the client's, with the model's version; unique within its tenant and model.
        start: whether a new state begins with it.
        end: whether the state is given up after it.
        idle_s: seconds without a step after which the backend forgets the state.
        pipelined: whether the client may have sent the next step before it hears of this one.
    """

    sequence_id: str
    start: bool
    end: bool
    idle_s: float
    pipelined: bool


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """What the configuration of a model says of requests that wait for it (queue_policy.py).

    Attributes:
        level: priority level whose policy it is; 0 where the model has none.
        max_queued: waiting requests of the level, at most; None: any number.
        wait_s: seconds that one of them may wait; None: as long as it takes.
        delays: what comes then: whether it goes behind the others, or is refused.
    """

    level: int
    max_queued: int | None
    wait_s: float | None
    delays: bool


@dataclass(slots=True, eq=False)
class Ticket:
    """One request as the scheduler sees it.

    Attributes:
        ticket_id: unique in the life of one scheduler.
        priority_class: name of a configured class.
        tenant: who asks; the unit of fairness and caps.
        model: name of the model, the unit of capacity.
        rows: size of the batch dimension, 1 for a model that has none.
        queue_bytes: bytes of tensors that wait in memory while this ticket is queued.
        merge_key: tickets with the same key may ride in one batch; None rides alone.
        deadline: monotonic seconds; None waits as long as it takes.
        step: of a stateful sequence; None: the request stands by itself. A step rides alone.
        policy: of its model's configuration; None: it has none.
        join_key: Triton itself runs requests with the same key as one (executions.py); None: it does not.
        cost: what the operator says that its time depends on, such as the elements of an input; None: he says nothing.
        latency_key: what tells how long it takes, beside its model and its rows: tickets of one key have inputs of one
            shape. Where nothing is said it is the merge key, or else the join key.
        state: where the ticket is; owned by the scheduler.
        start_tag: its tenant's place in its class's virtual time (share.py) when it was taken; virtual seconds.
        queued_tag: where that virtual time stood when it was queued.
        batch_id: of the batch that it rode in last; 0 before the first.
        resent: whether it is not sent again: a backend that was lost had it already, or gave part of its answer.
        delayed: whether it waited for longer than its policy lets it, and goes behind those that have not.
        tried: whether it is served whatever is expected of it, up to its deadline (evidence.py).
        due: its place in its tenant's order, monotonic seconds (order.py); set when it is queued.
        holder: whom it counts for (caps.py tells of it); set when it is queued.
        lane: the queues that it stands in; its model's name but for a step, whose backend has queues of its own.
        sequence_number: what the backends know its sequence by; 0 where it is no step.
        charge: what it took of a rate in seconds of service; None: nothing.
    """

    ticket_id: int
    priority_class: str
    tenant: str
    model: str
    rows: int = 1
    queue_bytes: int = 0
    merge_key: str | None = None
    deadline: float | None = None
    step: Step | None = None
    policy: QueuePolicy | None = None
    join_key: str | None = None
    cost: int | None = None
    latency_key: str | None = None
    state: TicketState = field(default=NEW, init=False)
    start_tag: float = field(default=0.0, init=False)
    queued_tag: float = field(default=0.0, init=False)
    batch_id: int = field(default=0, init=False)
    resent: bool = field(default=False, init=False)
    delayed: bool = field(default=False, init=False)
    tried: bool = field(default=False, init=False)
    due: float = field(default=inf, init=False)
    holder: object | None = field(default=None, init=False, repr=False)
    lane: str = field(default="", init=False)
    sequence_number: int = field(default=0, init=False)
    charge: Charge | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.lane = self.model
        if self.latency_key is None:
            self.latency_key = self.join_key if self.merge_key is None else self.merge_key

    @property
    def waiting(self) -> bool:
        """Whether the ticket holds a place in a queue."""
        return self.state is QUEUED or self.state is RETRYING
