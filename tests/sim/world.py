"""A world for the scheduler: clients, backends and a virtual clock. A seed gives the same run every time."""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random

from scheduler.core.backend import BackendState, ModelCapacity
from scheduler.core.events import Abandon, Dispatch
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import CoreSettings
from scheduler.core.ticket import Ticket


@dataclass(slots=True)
class Record:
    """What became of one ticket. Times in seconds; `service_s` is its rows' part of its batch's service."""

    ticket: Ticket
    arrived_at: float
    on_end: Callable[[], None] | None
    started_at: float | None = None
    ended_at: float | None = None
    service_s: float = 0.0
    outcome: Outcome | None = None
    pushback_s: float | None = None

    @property
    def wait_s(self) -> float:
        return self.started_at - self.arrived_at


@dataclass(frozen=True, slots=True)
class Load:
    """What the tickets of one client look like; `patience_s` is their deadline after arrival."""

    priority_class: str = "interactive"
    tenant: str = "acme"
    model: str = "m"
    rows: int = 1
    merge_key: str | None = "k"
    patience_s: float | None = None


@dataclass(slots=True)
class Server:
    """One model on one backend: `instances` take batches in order, each for a + b * rows seconds."""

    a: float
    b: float
    instances: int = 1
    max_batch_size: int = 8
    jitter: float = 0.0
    running: int = 0
    ready: deque[Dispatch] = field(default_factory=deque)
    batch_rows: list[int] = field(default_factory=list)

    def service_s(self, rows: int, chance: Random) -> float:
        return (self.a + self.b * rows) * (1 + self.jitter * (2 * chance.random() - 1))


class World:
    """Runs a scheduler against servers by (backend, model)."""

    def __init__(self, settings: CoreSettings, servers: dict[tuple[str, str], Server], seed: int = 1) -> None:
        self.now = 0.0
        self.core = Scheduler(settings)
        self.records: dict[int, Record] = {}
        self.servers = servers
        self._chance = Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        for name in dict.fromkeys(backend for backend, _ in servers):
            models = {m: ModelCapacity(s.instances, s.max_batch_size) for (b, m), s in servers.items() if b == name}
            self.core.set_backend(BackendState(name, True, models), now=0.0)

    # ---- clients

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), action))

    def submit(self, load: Load, on_end: Callable[[], None] | None = None) -> None:
        deadline = None if load.patience_s is None else self.now + load.patience_s
        number = len(self.records)
        ticket = Ticket(number, load.priority_class, load.tenant, load.model, load.rows, 0, load.merge_key, deadline)
        self.records[number] = Record(ticket, self.now, on_end)
        self.core.submit(ticket, now=self.now)

    def backlog(self, load: Load, depth: int, start: float = 0.0) -> None:
        """A client that always has `depth` tickets waiting or in flight."""

        def again() -> None:
            self.submit(load, again)

        for _ in range(depth):
            self.at(start, again)

    def periodic(self, load: Load, per_s: float, start: float = 0.0) -> None:
        self._arrivals(load, start, lambda: 1 / per_s)

    def poisson(self, load: Load, per_s: float, start: float = 0.0, stop: float = float("inf")) -> None:
        self._arrivals(load, start, lambda: self._chance.expovariate(per_s), stop)

    def _arrivals(self, load: Load, when: float, gap: Callable[[], float], stop: float = float("inf")) -> None:
        def arrive() -> None:
            nonlocal when
            self.submit(load)
            when += gap()
            if when < stop:
                self.at(when, arrive)

        self.at(when, arrive)

    # ---- time

    def run(self, until: float) -> None:
        """Let everything happen that is due before this time; all at one instant is fed before events are pulled."""
        while True:
            when = min(self._due[0][0] if self._due else until, self.core.next_wakeup() or until)
            if when >= until:
                break
            self.now = when
            while self._due and self._due[0][0] == when:
                heapq.heappop(self._due)[2]()
            self.core.tick(now=when)
            self._pull()
        self.now = until

    def _pull(self) -> None:
        while (event := self.core.next_event()) is not None:
            if isinstance(event, Dispatch):
                server = self.servers[event.backend, event.tickets[0].model]
                server.ready.append(event)
                self._run_next(server)
                continue
            if isinstance(event, Abandon):
                continue  # the batch runs to its end: Triton does not take back what is with an instance
            record = self.records[event.ticket.ticket_id]
            record.pushback_s = event.pushback_s
            self._end(record, event.outcome)

    def _run_next(self, server: Server) -> None:
        if not server.ready or server.running == server.instances:
            return
        server.running += 1
        batch = server.ready.popleft()
        rows = sum(ticket.rows for ticket in batch.tickets)
        server.batch_rows.append(rows)
        service_s = server.service_s(rows, self._chance)
        for ticket in batch.tickets:
            record = self.records[ticket.ticket_id]
            record.started_at, record.service_s = self.now, service_s * ticket.rows / rows
        self.at(self.now + service_s, lambda: self._finish(server, batch))

    def _finish(self, server: Server, batch: Dispatch) -> None:
        server.running -= 1
        for ticket in self.core.complete(batch.batch_id, Verdict.SUCCEEDED, now=self.now):
            self._end(self.records[ticket.ticket_id], Outcome.COMPLETED)
        self._run_next(server)

    def _end(self, record: Record, outcome: Outcome) -> None:
        assert record.outcome is None
        record.ended_at, record.outcome = self.now, outcome
        if record.on_end is not None:
            record.on_end()

    # ---- what happened

    def ended(self, since: float = 0.0, until: float = float("inf"), **ticket: object) -> Iterator[Record]:
        """Tickets completed in this time with these attributes."""
        for record in self.records.values():
            in_time = record.outcome is Outcome.COMPLETED and since <= record.ended_at < until
            if in_time and all(getattr(record.ticket, name) == value for name, value in ticket.items()):
                yield record

    def service_s(self, since: float = 0.0, until: float = float("inf"), **ticket: object) -> float:
        return sum(record.service_s for record in self.ended(since, until, **ticket))

    def rows(self, since: float = 0.0, until: float = float("inf"), **ticket: object) -> int:
        return sum(record.ticket.rows for record in self.ended(since, until, **ticket))

    def longest_wait_s(self, since: float = 0.0, **ticket: object) -> float:
        """Of all tickets that arrived from then on and have started, or still wait."""
        return max(
            (self.now if record.started_at is None else record.started_at) - record.arrived_at
            for record in self.records.values()
            if record.arrived_at >= since
            and record.outcome in (None, Outcome.COMPLETED)
            and all(getattr(record.ticket, name) == value for name, value in ticket.items())
        )
