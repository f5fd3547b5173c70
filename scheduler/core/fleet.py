"""The backends, and every batch that is out at one of them.

A batch ends once: answered, lost, withdrawn, or given up because it hangs (breaker.py). The answer to a
batch that was given up comes late or never; its number is remembered until the driver reports it.

Hangs are looked for no later than each is due: no batch may hang before HANG_S have passed since its start, so a
look every HANG_S, or sooner where the last one saw an earlier end of patience, misses none.
"""

from collections.abc import Iterator

from scheduler.core.backend import Backend, BackendState, Batch
from scheduler.core.breaker import HANG_S, BreakerState, hangs_after_s
from scheduler.core.lane import Lane
from scheduler.core.outcome import Verdict
from scheduler.core.placement import place
from scheduler.core.snapshot import BackendSnapshot, BreakerSnapshot
from scheduler.core.ticket import Ticket, TicketState


class Fleet:
    """Backends by name and batches by number. Times in monotonic seconds."""

    __slots__ = ("_backends", "_batches", "_given_up", "_last_batch_id", "_look_at", "_opened")

    def __init__(self) -> None:
        self._backends: dict[str, Backend] = {}
        self._batches: dict[int, Batch] = {}
        self._given_up: set[int] = set()
        self._last_batch_id = 0
        self._look_at: float | None = None
        # Backends where a breaker is not closed.
        self._opened: dict[str, Backend] = {}

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def idle(self) -> bool:
        """Whether no batch is out, and no call of one that was given up."""
        return not self._batches and not self._given_up

    @property
    def riders(self) -> int:
        """Tickets in the batches that are out, those included whose caller has gone."""
        return sum(len(batch.tickets) for batch in self._batches.values())

    def held(self) -> Iterator[Ticket]:
        """The tickets at the backends, those of callers that have gone included."""
        for batch in self._batches.values():
            yield from batch.tickets

    def set_state(self, state: BackendState, *, now: float) -> None:
        """Add a backend, or change what it offers; one that is ready again is probed at once."""
        backend = self._backends.get(state.name)
        if backend is None:
            self._backends[state.name] = Backend(state)
            return
        if state.ready and not backend.state.ready:
            for breaker in backend.breakers.values():
                breaker.retry_at = min(breaker.retry_at, now)
        backend.state = state

    def offered(self, model: str) -> bool:
        """Whether a ready backend serves the model, be its breaker open or not."""
        return any(backend.state.ready and model in backend.state.models for backend in self._backends.values())

    def place(self, model: str) -> Backend | None:
        """Where the model's next batch goes; None where there is no place."""
        return place(self._backends.values(), model)

    def batch(self, batch_id: int) -> Batch | None:
        """The batch of that number; None where it is not out any more."""
        return self._batches.get(batch_id)

    def batch_of(self, ticket: Ticket) -> Batch | None:
        """The batch that the ticket rides in."""
        return self._batches.get(ticket.batch_id)

    def start(self, lane: Lane, backend: Backend, tickets: tuple[Ticket, ...], *, now: float) -> Batch:
        """Book a batch of these tickets out at the backend."""
        self._last_batch_id += 1
        rows = sum(ticket.rows for ticket in tickets)
        merge_key = tickets[0].merge_key
        batch = Batch(
            batch_id=self._last_batch_id,
            backend=backend.name,
            model=lane.model,
            merge_key=merge_key,
            tickets=tickets,
            rows=rows,
            estimate_s=lane.estimator.line(merge_key).predict(rows),
            dispatched_at=now,
            started_at=None,
        )
        for ticket in tickets:
            ticket.batch_id = batch.batch_id
        known = lane.estimator.line(None).samples > 0
        batch.patience_s = hangs_after_s(batch.estimate_s, known=known)
        if backend.breakers and (breaker := backend.breakers.get(lane.model)) is not None:
            batch.patience_s *= breaker.patience
            breaker.sent(batch.batch_id)
        backend.start(batch)
        self._batches[batch.batch_id] = batch
        if self._look_at is None:
            self._look_at = now + HANG_S
        return batch

    def finish(self, batch_id: int, verdict: Verdict, *, now: float) -> tuple[Batch, float] | None:
        """Take a batch out.

        Returns:
            The batch and its seconds of service; None for one that was given up before.

        Raises:
            ValueError: there is no such batch.
        """
        if batch_id in self._given_up:
            self._given_up.remove(batch_id)
            return None
        batch = self._batches.pop(batch_id, None)
        if batch is None:
            raise ValueError(f"batch {batch_id} is not in flight")
        backend = self._backends[batch.backend]
        service_s = backend.finish(batch, now=now)
        backend.heard(batch, verdict, now=now)
        self._note(backend)
        if not self._batches:
            self._look_at = None
        return batch, service_s

    def give_up_hanging(self, *, now: float) -> list[Batch]:
        """Take out what hangs: a batch whose patience has ended, and what lies at its backend for the same model."""
        if self._look_at is None or now < self._look_at:
            return []
        hung = set()
        for batch in self._batches.values():
            if batch.hangs_at <= now:
                hung.add((batch.backend, batch.model))
                backend = self._backends[batch.backend]
                why = f"no answer in {now - batch.began:.3g} s"
                backend.breaker(batch.model).failed(batch.batch_id, why, at_once=True, now=now)
                self._note(backend)
        lost = [batch for batch in self._batches.values() if (batch.backend, batch.model) in hung]
        for batch in lost:
            del self._batches[batch.batch_id]
            self._given_up.add(batch.batch_id)
            self._backends[batch.backend].finish(batch, now=now)
        ends = [batch.hangs_at for batch in self._batches.values()]
        self._look_at = min([*ends, now + HANG_S]) if ends else None
        return lost

    def tick(self, *, now: float) -> list[str]:
        """Let time pass; returns models for which a breaker lets a probe out now."""
        probing: list[str] = []
        for backend in self._opened.values():
            probing += backend.tick(now=now)
        return probing

    def wakeups(self) -> Iterator[float]:
        """When `give_up_hanging` and `tick` are due next."""
        if self._look_at is not None:
            yield self._look_at
        for backend in self._opened.values():
            for breaker in backend.breakers.values():
                if breaker.state is BreakerState.OPEN:
                    yield breaker.retry_at

    def snapshot(self) -> tuple[BackendSnapshot, ...]:
        """Every backend's state."""
        return tuple(_snapshot(backend) for backend in self._backends.values())

    def _note(self, backend: Backend) -> None:
        if backend.breakers:
            self._opened[backend.name] = backend
        elif self._opened:
            self._opened.pop(backend.name, None)


def waited_for(batch: Batch) -> bool:
    """Whether anybody still waits for the batch's answer."""
    return any(ticket.state is TicketState.IN_FLIGHT for ticket in batch.tickets)


def may_try_again(ticket: Ticket, batch: Batch, verdict: Verdict) -> bool:
    """Whether a live ticket of a batch that ended this way is sent once more, alone; marks it where that is its last.

    A ticket that was merged and failed is tried alone, as another may be guilty. One that was lost is sent a second
    time, but not a third: inference keeps no state, and what takes a backend down is not to take down all.
    """
    if verdict is Verdict.FAILED or verdict is Verdict.GARBLED:
        return len(batch.tickets) > 1
    if ticket.resent or (verdict is not Verdict.LOST and verdict is not Verdict.UNAVAILABLE):
        return False
    ticket.resent = True
    return True


def _snapshot(backend: Backend) -> BackendSnapshot:
    in_flight = {model: backend.in_flight(model) for model in (*backend.state.models, *backend.busy_models())}
    breakers = {
        model: BreakerSnapshot(breaker.state.value, breaker.why, breaker.since, breaker.retry_at)
        for model, breaker in backend.breakers.items()
    }
    return BackendSnapshot(backend.name, backend.state.ready, in_flight, backend.work_s(), breakers)
