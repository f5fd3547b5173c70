"""The queue policy of a model's own configuration, kept where its requests wait now.

Triton bounds a model's queue by requests (`max_queue_size`) and by time (`default_timeout_microseconds`), for each
priority level by itself. Its requests wait here and not there, so both hold here: a ticket that finds as many before it
as Triton would let queue is refused, and one that has waited for too long is refused (REJECT), or goes behind those of
its tenant that have not (DELAY). https://docs.nvidia.com/deeplearning/triton-inference-server, ModelQueuePolicy.
"""

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final

from scheduler.core.ticket import QUEUED, QueuePolicy, Ticket

# Below this many dead entries a sweep costs more than it frees.
SLACK_ENTRIES: Final = 64


@dataclass(slots=True)
class _Queue:
    """Tickets under one policy; all wait equally long, so they are due in the order in which they came."""

    size: int
    due: deque[tuple[float, Ticket]]


class PolicyQueues:
    """What waits under a policy, by model and policy. Times in monotonic seconds."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[tuple[str, QueuePolicy], _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def entries(self) -> int:
        """Tickets that are remembered for their time, those that wait no longer included."""
        return sum(len(queue.due) for queue in self._queues.values())

    def full(self, ticket: Ticket, spare: int) -> bool:
        """Whether Triton's own queue would be full.

        Args:
            ticket: it is not here yet.
            spare: instances of its model that are idle, which take one at once; less than zero: batches that lie at
                the backends behind others, and wait there.
        """
        policy = ticket.policy
        if policy is None or policy.max_queued is None:
            return False
        queue = self._queues.get((ticket.model, policy))
        return (0 if queue is None else queue.size) - spare >= policy.max_queued

    def enter(self, ticket: Ticket, policy: QueuePolicy, *, now: float) -> None:
        """The ticket begins to wait."""
        queue = self._queues.get((ticket.model, policy))
        if queue is None:
            queue = self._queues[ticket.model, policy] = _Queue(0, deque())
        queue.size += 1
        if policy.wait_s is None:
            return
        if len(queue.due) > 2 * queue.size + SLACK_ENTRIES:
            queue.due = deque(entry for entry in queue.due if entry[1].state is QUEUED)
        queue.due.append((now + policy.wait_s, ticket))

    def leave(self, ticket: Ticket, policy: QueuePolicy) -> None:
        """The ticket waits no longer."""
        queue = self._queues[ticket.model, policy]
        queue.size -= 1
        if not queue.size:
            del self._queues[ticket.model, policy]

    def pop_due(self, *, now: float) -> Ticket | None:
        """A ticket that has waited for as long as its policy lets it; each once."""
        for queue in self._queues.values():
            while queue.due and queue.due[0][0] <= now:
                ticket = queue.due.popleft()[1]
                if ticket.state is QUEUED:
                    return ticket
        return None

    def next_due(self) -> float:
        """When the next ticket has waited for too long; infinite: never."""
        at = inf
        for queue in self._queues.values():
            while queue.due and queue.due[0][1].state is not QUEUED:
                queue.due.popleft()
            if queue.due:
                at = min(at, queue.due[0][0])
        return at
