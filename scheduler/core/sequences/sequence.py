"""Stateful sequences: steps that share a state at one backend, in order, one at a time, and never with a gap.

A model that keeps state (Triton's sequence batcher) computes each step on what the ones before it left behind. So a
sequence is bound to one backend from its start on; its next step enters the queue of that backend when the one before
it has left the backend; no step is merged with others (Triton batches sequences itself) or sent twice.

A step that ends without the model's answer leaves a gap: cancelled, expired, displaced, lost. What comes after it, up
to the next start, would be computed on a state that nobody asked for, so it ends as SEQUENCE_LOST. An error that the
model answered leaves none: Triton goes on, and so may the client. A step that is refused on arrival leaves a gap where
the client may have sent more already: on a stream, or while others of its steps are under way. Otherwise it may come
again.

A sequence starts on the ready backend with the fewest sequences for each instance of the model, then the least work in
flight: what a sequence will ask for is not known, only that it stays. It is forgotten when its end is answered, or when
nothing of it was under way for `idle_s`, the time after which Triton forgets it. That is looked at when it is asked for
and when room is short; only while a start waits for a slot does it need a timer.

A backend keeps the state of each sequence in a slot, and has so many. A start that it has no slot for would wait there
in one of the model's few places in flight, and as many of them as there are places would stop the sequences that have
slots. So a start that finds no slot on any backend waits here with others of its kind, in queues of their own, where
shares, caps and deadlines hold as anywhere (steps.py), and where it keeps nobody else waiting.

Every operation is O(log sequences) amortised, but for the loss of a backend, which looks at all.

At most `max_sequences` are known, and a tenant may start one while it has fewer than there is room left for (the
dynamic threshold of A. Choudhury, E. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches",
IEEE/ACM ToN 1998, with its factor at 1). So k tenants that take all they can have max_sequences / (k + 1) each, one
alone half of them, and whoever comes next finds room for as many. Counted is whom a ticket counts for (caps.py), or
inventing names would gain a threshold each; their number is bounded there, over a minute.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

from scheduler.core.admission.bounds import Refusal
from scheduler.core.outcome import Outcome
from scheduler.core.tenants.caps import holder_of
from scheduler.core.ticket import Step, Ticket

# One that is under way is looked at again later than now, also where the backend forgets at once.
LEAST_IDLE_S: Final = 0.001

# Of one tenant, model and version; the client's id may be a number or a string.
Key = tuple[str, str, str]


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence.

    Attributes:
        key: tenant, model, and the client's id.
        owner: name of whom it counts for (caps.py): the tenant, or the place that unknown names share.
        number: what the backends know it by; no two sequences of a scheduler have the same.
        idle_s: seconds without a step after which it is forgotten.
        backend: where its state is; empty until its start is sent, after its end, and when that backend is lost.
        current: the step that waits for a place at the backend, or is there, its caller gone or not.
        waiting: the steps behind it, in order.
        open: whether a step that is no start may follow the last that was accepted.
        idle_since: monotonic seconds; when the last step ended.
    """

    key: Key
    owner: str
    number: int
    idle_s: float
    idle_since: float
    backend: str
    current: Ticket | None
    waiting: deque[Ticket]
    open: bool

    @property
    def model(self) -> str:
        """The model that keeps its state."""
        return self.key[1]

    @property
    def under_way(self) -> bool:
        """Whether a step waits or is at the backend."""
        return self.current is not None or bool(self.waiting)

    def lose(self, *, everything: bool = False) -> list[Ticket]:
        """Take out the steps from the first that waits to before the next start, or all that wait."""
        lost: list[Ticket] = []
        while self.waiting and (everything or not _step(self.waiting[0]).start):
            lost.append(self.waiting.popleft())
        if not self.waiting:
            self.open = False
        return lost

    def lose_after(self, ticket: Ticket) -> list[Ticket]:
        """Take out a step that waits, and those after it up to before the next start; returns the latter."""
        steps = list(self.waiting)
        place = steps.index(ticket)
        after = steps[place + 1 :]
        kept = next((n for n, each in enumerate(after) if _step(each).start), len(after))
        self.waiting = deque((*steps[:place], *after[kept:]))
        if kept == len(after):
            self.open = False
        return after[:kept]


class Sequences:
    """Every sequence that is known; `len()` counts those whose idle time has passed unnoticed, too."""

    __slots__ = ("_by_backend", "_by_key", "_by_owner", "_idle", "_last_number")

    def __init__(self) -> None:
        self._by_key: dict[Key, Sequence] = {}
        # By model and backend: how many are bound there.
        self._by_backend: dict[str, dict[str, int]] = {}
        self._by_owner: dict[str, int] = {}
        # One entry for each sequence, by when it may be forgotten, as it was last looked at.
        self._idle: list[tuple[float, int, Sequence]] = []
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._by_key.values())

    def by_backend(self, model: str) -> Mapping[str, int]:
        """How many of the model's sequences are bound to each backend."""
        return self._by_backend.get(model, {})

    def bind(self, sequence: Sequence, backend: str) -> None:
        """The sequence's state is at this backend from now on; empty: nowhere."""
        counts = self._by_backend.setdefault(sequence.model, {})
        for name, change in ((sequence.backend, -1), (backend, 1)):
            if name and not (count := counts.get(name, 0) + change):
                del counts[name]  # backends may come and go without end
            elif name:
                counts[name] = count
        sequence.backend = backend

    def of(self, ticket: Ticket) -> Sequence | None:
        """The sequence that the ticket is, or would be, a step of."""
        return self._by_key.get(_key(ticket))

    def refusal(self, ticket: Ticket, owner: str, most: int, *, now: float) -> Refusal | None:
        """Why the step may not queue: there is no such sequence, or too many; None: it may."""
        sequence = self._living(ticket, now=now)
        if not _step(ticket).start:
            if sequence is None or not sequence.open:
                detail = "there is no such sequence, or a step of it is missing; begin anew with sequence_start"
                return Refusal(Outcome.SEQUENCE_LOST, detail=detail)
            return None
        if sequence is None and self._by_owner.get(owner, 0) >= most - len(self):
            self.forget_idle(now=now)
            own, room = self._by_owner.get(owner, 0), most - len(self)
            if own >= room:
                detail = f"tenant {owner!r} has {own} open, and limits.max_sequences ({most}) leaves {room}"
                return Refusal(Outcome.TOO_MANY_SEQUENCES, detail=detail)
        return None

    def join(self, ticket: Ticket, *, now: float) -> bool:
        """Take in a step that `refusal` has let pass; tells whether it is the sequence's current one from now on."""
        step = _step(ticket)
        sequence = self.of(ticket)
        if sequence is None:
            sequence = self._add(ticket, now)
        ticket.sequence_number = sequence.number
        sequence.idle_s = step.idle_s
        sequence.open = not step.end
        if sequence.under_way:
            sequence.waiting.append(ticket)
            return False
        sequence.current = ticket
        return True

    def refused(self, ticket: Ticket) -> None:
        """The step was refused on arrival: none may follow it where that would leave a gap."""
        sequence, step = self.of(ticket), _step(ticket)
        if sequence is not None and (step.start or step.pipelined or sequence.under_way):
            sequence.open = False

    def unanswered(self, ticket: Ticket) -> list[Ticket]:
        """An accepted step ends without the model's answer; returns those that are lost with it."""
        sequence = self.of(ticket)
        if sequence is None:
            return []
        if ticket is sequence.current:
            return sequence.lose()
        return sequence.lose_after(ticket) if ticket in sequence.waiting else []

    def leave(self, ticket: Ticket, *, answered: bool, now: float) -> Ticket | None:
        """The current step has left its queue unserved, or its backend; returns the one that is current now."""
        sequence = self.of(ticket)
        if sequence is None or sequence.current is not ticket:
            return None
        sequence.current = None
        sequence.idle_since = now
        if answered and _step(ticket).end:
            self.bind(sequence, "")
            if not sequence.waiting:
                self._forget(sequence)
                return None
        if sequence.waiting:
            sequence.current = sequence.waiting.popleft()
        return sequence.current

    def _add(self, ticket: Ticket, now: float) -> Sequence:
        self._last_number += 1
        key, owner = _key(ticket), holder_of(ticket).name
        sequence = Sequence(key, owner, self._last_number, _step(ticket).idle_s, now, "", None, deque(), open=True)
        self._by_key[key] = sequence
        self._by_owner[owner] = self._by_owner.get(owner, 0) + 1
        if len(self._idle) > 2 * len(self._by_key):
            self._idle = [entry for entry in self._idle if self._by_key.get(entry[2].key) is entry[2]]
            heapq.heapify(self._idle)
        heapq.heappush(self._idle, (now + sequence.idle_s, sequence.number, sequence))
        return sequence

    def _living(self, ticket: Ticket, *, now: float) -> Sequence | None:
        """The ticket's sequence; one that was idle for too long is forgotten."""
        sequence = self.of(ticket)
        if sequence is not None and _forgotten_at(sequence, now) <= now:
            self._forget(sequence)
            return None
        return sequence

    def next_idle(self) -> float:
        """When `forget_idle` may next find one to forget, monotonic seconds; infinite where there is none."""
        return self._idle[0][0] if self._idle else inf

    def _forget(self, sequence: Sequence) -> None:
        self.bind(sequence, "")
        del self._by_key[sequence.key]
        owner = sequence.owner
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    def forget_idle(self, *, now: float) -> None:
        """Forget those that were idle for too long."""
        while self._idle and self._idle[0][0] <= now:
            _, number, sequence = self._idle[0]
            forgotten_at = _forgotten_at(sequence, now)
            if self._by_key.get(sequence.key) is not sequence:
                heapq.heappop(self._idle)
            elif forgotten_at <= now:
                heapq.heappop(self._idle)
                self._forget(sequence)
            else:
                heapq.heapreplace(self._idle, (forgotten_at, number, sequence))


def _forgotten_at(sequence: Sequence, now: float) -> float:
    """When it is forgotten if nothing more of it comes; where a step is under way, at the earliest."""
    if sequence.under_way:
        return now + max(sequence.idle_s, LEAST_IDLE_S)
    return sequence.idle_since + sequence.idle_s


def _step(ticket: Ticket) -> Step:
    assert ticket.step is not None
    return ticket.step


def _key(ticket: Ticket) -> Key:
    return (ticket.tenant, ticket.model, _step(ticket).sequence_id)
