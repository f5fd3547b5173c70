"""The world: a scheduler, backends and clients under one virtual clock. A seed gives the same run every time."""

from collections.abc import Callable, Iterable, Iterator
from math import inf
from random import Random
from typing import Final

from scheduler.core.events import Abandon, Dispatch, GiveUp, Inquire
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import CoreSettings
from scheduler.core.ticket import Ticket
from simulate.world.backend import PROBE_S, REFUSED_S, Backend, BackendPlan, Job
from simulate.world.clients import Client
from simulate.world.clock import Clock
from simulate.world.load import Load
from simulate.world.record import Record

# A core that asks to be woken at a time that has come, more often than this in a row, would never let time pass.
MOST_WAKEUPS: Final = 100


class World:
    """Feeds a scheduler as the driver does, and keeps a record of every ticket.

    Args:
        settings: of the core.
        backends: what serves.
        seed: of arrivals and service times.
        tried: number of a ticket that is not refused for what is expected of it.

    Attributes:
        core: the scheduler.
        clock: virtual seconds since the start.
        records: by ticket number, in order of arrival.
        backends: by name.
        open: whether clients may still submit.
    """

    def __init__(
        self, settings: CoreSettings, backends: Iterable[BackendPlan], seed: int = 1, tried: int | None = None
    ) -> None:
        self.core = Scheduler(settings)
        self.clock = Clock()
        self.records: list[Record] = []
        self.open = True
        self._seed = seed
        self._tried = tried
        self._clients = 0
        # Batches whose end the core is to be told.
        self._called: set[int] = set()
        self.backends = {plan.name: self._build(plan) for plan in backends}

    def _build(self, plan: BackendPlan) -> Backend:
        chance = Random(f"{self._seed} backend {plan.name}")
        backend = Backend(plan, self.clock, chance, self._started, self._ended)
        self.core.set_backend(plan.state(ready=True), now=0.0)
        if plan.outages:
            self.clock.at(PROBE_S, self._probe, backend, True)
        return backend

    # ---- clients

    def add(self, *clients: Client) -> None:
        """Let these clients send."""
        for client in clients:
            client.start(self, Random(f"{self._seed} client {self._clients}"))
            self._clients += 1

    def submit(self, load: Load, chance: Random, on_end: Callable[[Record], None] | None = None) -> None:
        """One ticket of this kind arrives now."""
        if not self.open:
            return
        now = self.clock.now
        ticket = Ticket(
            ticket_id=len(self.records),
            priority_class=load.priority_class,
            tenant=load.tenant,
            model=load.model,
            rows=load.rows,
            queue_bytes=load.queue_bytes,
            merge_key=load.merge_key,
            join_key=load.join_key,
            deadline=load.deadline(chance, now=now),
        )
        ticket.tried = ticket.ticket_id == self._tried
        self.records.append(Record(ticket, now, on_end))
        self.core.submit(ticket, now=now)

    # ---- time

    def run(self, until: float) -> None:
        """Let everything happen that is due before this time; all at one instant is fed before events are pulled.

        Raises:
            RuntimeError: the core asks again and again to be woken at a time that has come.
        """
        clock, core = self.clock, self.core
        self._pull()
        again = 0
        while True:
            due_at, wakeup = clock.next_at(), core.next_wakeup()
            when = max(clock.now, due_at if wakeup is None else min(due_at, wakeup))
            if when >= until:
                break
            again = again + 1 if when == clock.now < due_at else 0
            if again > MOST_WAKEUPS:
                raise RuntimeError(f"the core asks at {clock.now} s to be woken at {wakeup} s, again and again")
            clock.now = when
            clock.run_due()
            core.tick(now=when)
            self._pull()
        clock.now = max(clock.now, until)

    def settle(self, patience_s: float) -> bool:
        """Close the doors and serve what is left, for so many seconds at most; whether nothing is left."""
        self.open = False
        until = self.clock.now + patience_s
        while not self.core.idle and self.clock.now < until:
            self.run(min(until, self.clock.now + 1.0))
        return self.core.idle

    def _pull(self) -> None:
        next_event = self.core.next_event
        while (event := next_event()) is not None:
            if isinstance(event, Dispatch):
                self._called.add(event.batch_id)
                self.backends[event.backend].accept(event)
            elif isinstance(event, Abandon):
                self.clock.at(self.clock.now, self._abandon, event.batch_id)
            elif isinstance(event, Inquire):
                self.clock.at(self.clock.now + REFUSED_S, self._testify, event)
            elif not isinstance(event, GiveUp):
                record = self.records[event.ticket.ticket_id]
                record.pushback_s = event.pushback_s
                self._end(record, event.outcome)

    # ---- backends

    def _started(self, job: Job) -> None:
        now = self.clock.now
        for ticket in job.batch.tickets:
            record = self.records[ticket.ticket_id]
            if record.outcome is None:
                record.started_at = now

    def _abandon(self, batch_id: int) -> None:
        """End the call: a batch that lies ready is dropped, one that is with an instance runs to its end, unheard."""
        if batch_id in self._called:
            for backend in self.backends.values():
                backend.withdraw(batch_id)
            self._called.remove(batch_id)
            self.core.complete(batch_id, Verdict.ABANDONED, now=self.clock.now)

    def _testify(self, event: Inquire) -> None:
        """Tell what the backend says of a model when it is asked."""
        statement = self.backends[event.backend].statement(event.model)
        self.core.testify(event.batch_id, statement, now=self.clock.now)

    def _ended(self, job: Job, verdict: Verdict) -> None:
        if job.batch.batch_id not in self._called:
            return
        self._called.remove(job.batch.batch_id)
        row_s = job.work_s / job.rows
        outcome = Outcome.COMPLETED if verdict is Verdict.SUCCEEDED else Outcome.FAILED
        for ticket in self.core.complete(job.batch.batch_id, verdict, now=self.clock.now):
            record = self.records[ticket.ticket_id]
            record.service_s = row_s * ticket.rows
            self._end(record, outcome)

    def _end(self, record: Record, outcome: Outcome) -> None:
        if record.outcome is not None:
            raise RuntimeError(f"ticket {record.ticket.ticket_id} ended as {record.outcome} and again as {outcome}")
        record.ended_at, record.outcome = self.clock.now, outcome
        if record.on_end is not None:
            record.on_end(record)

    def _probe(self, backend: Backend, reported: bool) -> None:
        """Report a backend's readiness where it has changed since the last probe."""
        ready = backend.answers
        if ready != reported:
            self.core.set_backend(backend.plan.state(ready=ready), now=self.clock.now)
        self.clock.at(self.clock.now + PROBE_S, self._probe, backend, ready)

    # ---- what happened

    def ended(self, since: float = 0.0, until: float = inf, **ticket: object) -> Iterator[Record]:
        """Tickets that were answered in this time, with these attributes."""
        for record in self.records:
            in_time = record.completed and record.ended_at is not None and since <= record.ended_at < until
            if in_time and all(getattr(record.ticket, name) == value for name, value in ticket.items()):
                yield record

    def service_s(self, since: float = 0.0, until: float = inf, **ticket: object) -> float:
        """Service seconds of the tickets that `ended` gives."""
        return sum(record.service_s for record in self.ended(since, until, **ticket))

    def rows(self, since: float = 0.0, until: float = inf, **ticket: object) -> int:
        """Rows of the tickets that `ended` gives."""
        return sum(record.ticket.rows for record in self.ended(since, until, **ticket))

    def longest_wait_s(self, since: float = 0.0, **ticket: object) -> float:
        """Of all tickets that arrived from then on and have started, or still wait."""
        return max(
            (self.clock.now if record.started_at is None else record.started_at) - record.arrived_at
            for record in self.records
            if record.arrived_at >= since
            and record.outcome in (None, Outcome.COMPLETED)
            and all(getattr(record.ticket, name) == value for name, value in ticket.items())
        )
