"""The whole service of tests/edge, and a recorder that tests tell of requests at literal times."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from scheduler.core.backends.backend import Batch
from scheduler.core.events import Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.ticket import Ticket
from scheduler.telemetry.journey import Journal, Journey
from scheduler.telemetry.measures import Measures
from scheduler.telemetry.recorder import Recorder
from scheduler.telemetry.tenants import TenantTable
from tests.edge.conftest import request_of, serve  # noqa: F401 - fixtures


@dataclass
class Told:
    """A recorder, and short ways to tell it what happened."""

    recorder: Recorder = field(default_factory=lambda: Recorder(Measures(TenantTable(2, 0.0)), Journal(8)))
    tickets: int = 0
    batches: int = 0

    def arrive(self, at: float, tenant: str = "t", request_id: str = "", rows: int = 1, **about: Any) -> Ticket:
        self.tickets += 1
        fields = {"priority_class": "interactive", "model": "m"} | about
        ticket = Ticket(ticket_id=self.tickets, tenant=tenant, rows=rows, **fields)
        self.recorder.received(ticket, request_id=request_id, headers=(), arrived=at, now=at)
        return ticket

    def send(self, at: float, *tickets: Ticket, estimate_s: float = 0.01, started_at: float | None = -1.0) -> Batch:
        self.batches += 1
        started = at if started_at == -1.0 else started_at
        rows = sum(ticket.rows for ticket in tickets)
        batch = Batch(self.batches, "gpu0", "m", None, tickets, rows, estimate_s, at, started)
        self.recorder.dispatched(batch)
        return batch

    def end(self, at: float, batch: Batch, verdict: Verdict = Verdict.SUCCEEDED, *, retry: bool = False) -> None:
        self.recorder.completed(batch, verdict, () if retry else batch.tickets, now=at)

    def refuse(self, at: float, ticket: Ticket, outcome: Outcome = Outcome.QUEUE_FULL) -> None:
        self.recorder.refused(Reject(ticket, outcome, 1.0), now=at)

    def journey(self, name: str) -> Journey:
        found = self.recorder.journal.find(name)
        assert found is not None
        return found


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def get() -> Callable[..., Any]:
    """`await get(served, path)`: (status, body) of the HTTP side; JSON is parsed."""

    async def fetch(served: Any, path: str) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(f"http://{served.addresses.http}") as session,
            session.get(path) as reply,
        ):
            text = await reply.text()
            return reply.status, json.loads(text) if reply.content_type == "application/json" else text

    return fetch
