"""An account of the tickets that a scheduler was fed with, kept outside it."""

from collections import Counter

import pytest

from scheduler.core.backends.backend import BackendState, ModelCapacity
from scheduler.core.events import Abandon, Dispatch, GiveUp, Inquire, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.rate import Rate, RateUnit
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import Cap
from scheduler.core.ticket import QueuePolicy, Ticket
from tests.unit.core.build import class_settings, core_settings, tenant_settings

CLASSES = (
    class_settings("urgent", 1, max_queued=4, strict=True),
    class_settings("interactive", 16, max_queued=8, wait_s=0.05),
    class_settings("standard", 4, max_queued=8, wait_s=0.5, max_queue_bytes=120),
    class_settings("background", 1, max_queued=12),
)
RANKS = {settings.name: rank for rank, settings in enumerate(CLASSES)}
TENANTS = {
    "tight": tenant_settings(max_in_flight=1, max_queued=5),
    "heavy": tenant_settings(weight=4, max_in_flight=9, max_queued=9),
    "odd": tenant_settings(weight=0.3, max_in_flight=3, max_queued=9),
    "narrow": tenant_settings(
        max_rows_in_flight=4, max_queued=9, max_queue_bytes=80, model_caps={"m": Cap(2, None), "n": Cap(None, 3)}
    ),
    "metered": tenant_settings(rate_per_s=2, burst=3),
    "of_rows": tenant_settings(rate_per_s=4, burst=3, unit=RateUnit.ROWS),
    "of_seconds": tenant_settings(rate_per_s=0.25, burst=0.5, unit=RateUnit.SECONDS),
}
SETTINGS = core_settings(
    CLASSES,
    TENANTS,
    default=tenant_settings(max_in_flight=6, max_queued=6, rate_per_s=20, burst=9),
    max_queued=20,
    queue_bytes=200,
    max_tenants=2,
)
MODELS = ("m", "n")
POLICIES = (
    QueuePolicy(0, 2, 0.3, delays=False),
    QueuePolicy(1, 3, 0.3, delays=True),
    QueuePolicy(2, None, 1.0, delays=False),
)
USUAL = dict.fromkeys(MODELS, ModelCapacity(1, 4))


class Account:
    """What was fed to `core`, and what has to have become of it, told by its events alone."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(SETTINGS)
        self.now = 0.0
        self.last_id = 0
        self.draining = False
        self.backends: dict[str, BackendState] = {}
        self.live: dict[int, Ticket] = {}
        self.in_flight: dict[int, Dispatch] = {}
        self.retrying: set[int] = set()
        self.tried_twice: set[int] = set()
        self.resent: set[int] = set()
        self.given_up: list[int] = []
        self.abandoned: set[int] = set()
        self.cancelled_in_flight: set[int] = set()
        self.ended: Counter[str] = Counter()
        self.virtual: dict[int, tuple[object, float]] = {}
        self.arriving: Ticket | None = None
        self.arrived: dict[int, float] = {}
        self.tokens: dict[str, tuple[float, float]] = {}
        # Seconds of service that tickets in the account have taken of their rate, and not settled.
        self.charged: dict[int, float] = {}
        self._set_backend(BackendState("a", True, USUAL))

    def _set_backend(self, state: BackendState) -> None:
        self.backends[state.name] = state
        self.core.set_backend(state, now=self.now)

    def _recover(self) -> None:
        self._set_backend(BackendState("a", True, USUAL))
        self._pull()

    def _complete(self, batch_id: int, verdict: Verdict) -> None:
        batch = self.core.batch(batch_id)
        ended = self.core.complete(batch_id, verdict, now=self.now)
        tickets = self.in_flight.pop(batch_id).tickets
        served = batch is not None and verdict not in {Verdict.LOST, Verdict.UNREACHED, Verdict.UNAVAILABLE}
        for ticket in tickets:
            self._settle(ticket, (self.now - batch.began) / batch.rows * ticket.rows if served else 0.0)
        assert {ticket.ticket_id for ticket in ended} <= {ticket.ticket_id for ticket in tickets} - self.retrying
        for ticket in ended:
            self._end(ticket, Outcome.COMPLETED if verdict is Verdict.SUCCEEDED else Outcome.FAILED)
        for ticket in tickets:
            self.cancelled_in_flight.discard(ticket.ticket_id)
            if ticket.ticket_id not in self.live:
                continue
            if verdict in {Verdict.LOST, Verdict.UNAVAILABLE}:
                self._lost(ticket.ticket_id)
                continue
            if verdict is Verdict.UNREACHED:
                self.retrying.add(ticket.ticket_id)
                continue
            assert verdict in {Verdict.FAILED, Verdict.GARBLED}
            assert len(tickets) > 1
            assert ticket.ticket_id not in self.tried_twice
            self.retrying.add(ticket.ticket_id)
            self.tried_twice.add(ticket.ticket_id)

    def _lost(self, ticket_id: int) -> None:
        """A live ticket's backend was lost: it goes once more, or an event tells that it has ended."""
        if ticket_id not in self.resent:
            self.resent.add(ticket_id)
            self.retrying.add(ticket_id)

    def _cancel(self, ticket_id: int) -> None:
        ticket = self.live[ticket_id]
        if any(ticket in batch.tickets for batch in self.in_flight.values()):
            self.cancelled_in_flight.add(ticket_id)
        self.core.cancel(ticket_id, now=self.now)
        self._drop_expired()
        if ticket_id in self.live:
            self._end(ticket, Outcome.CANCELLED)

    def _drop_expired(self) -> None:
        """Take in what the last input evicted before anything else is looked at."""
        while self.core._endings.events:
            self._take(self.core.next_event())

    def _let_in(self, ticket: Ticket) -> None:
        """Take what the ticket costs of the bucket that the outside keeps for each tenant with a rate."""
        name = ticket.holder.name
        rate = SETTINGS.for_tenant(name).rate
        if rate is None:
            return
        cost = self._cost(ticket, rate)
        if rate.unit is RateUnit.SECONDS:
            # What it is expected to take is the core's business; it is settled when it has ended.
            cost = self.charged[ticket.ticket_id] = ticket.charge._seconds
        assert self._tokens(name) >= min(cost, rate.burst) - 1e-6
        self._take_tokens(name, cost)

    def _take_tokens(self, name: str, cost: float) -> None:
        self.tokens[name] = (min(SETTINGS.for_tenant(name).rate.burst, self._tokens(name) - cost), self.now)

    def _settle(self, ticket: Ticket, used_s: float) -> None:
        if ticket.ticket_id in self.charged:
            self._take_tokens(ticket.holder.name, used_s - self.charged[ticket.ticket_id])
            self.charged[ticket.ticket_id] = 0.0

    @staticmethod
    def _cost(ticket: Ticket, rate: Rate) -> float:
        return ticket.rows if rate.unit is RateUnit.ROWS else 1

    def _tokens(self, name: str) -> float:
        rate = SETTINGS.for_tenant(name).rate
        tokens, at = self.tokens.get(name, (rate.burst, self.now))
        return min(rate.burst, tokens + (self.now - at) * rate.per_s)

    def _check_refusal(self, event) -> None:
        """The outcome is true, as far as the outside can tell."""
        ticket = event.ticket
        if isinstance(event, Reject):
            assert ticket is self.arriving
        if event.outcome is Outcome.RATE_LIMITED:
            rate = SETTINGS.for_tenant(ticket.tenant).rate
            if ticket.tenant in TENANTS and rate.unit is not RateUnit.SECONDS:
                lacking = min(self._cost(ticket, rate), rate.burst) - self._tokens(ticket.tenant)
                assert event.pushback_s == pytest.approx(lacking / rate.per_s, abs=1e-6)
            assert event.pushback_s > 0
        if event.outcome is Outcome.QUEUE_TIMEOUT:
            assert not ticket.policy.delays
            assert self.now >= self.arrived[ticket.ticket_id] + ticket.policy.wait_s - 1e-9
            assert ticket.ticket_id not in self.retrying
        if event.outcome is Outcome.DISPLACED:
            rank = RANKS[ticket.priority_class]
            assert rank > RANKS[self.arriving.priority_class]
            assert ticket.ticket_id not in self.retrying
            waiting = [each for each in self._waiting() if each is not self.arriving]
            assert max(RANKS[each.priority_class] for each in waiting) == rank
            assert max(each.ticket_id for each in waiting if RANKS[each.priority_class] == rank) == ticket.ticket_id

    def _pull(self) -> None:
        while (event := self.core.next_event()) is not None:
            self._take(event)
        self._note_given_up()
        assert self.abandoned.issuperset(self.given_up)

    def _note_given_up(self) -> None:
        """A batch may be given up without a further event: it was abandoned before, and hangs."""
        for batch_id in sorted(self.core._fleet._given_up.difference(self.given_up)):
            self.given_up.append(batch_id)
            for ticket in self.in_flight.pop(batch_id).tickets:
                self.cancelled_in_flight.discard(ticket.ticket_id)
                self._settle(ticket, 0.0)
                if ticket.ticket_id in self.live:
                    self._lost(ticket.ticket_id)

    def _take(self, event) -> None:
        if isinstance(event, (Inquire, GiveUp)):
            return
        if isinstance(event, Abandon):
            assert event.batch_id not in self.abandoned
            self.abandoned.add(event.batch_id)
            return
        self._note_given_up()
        if not isinstance(event, Dispatch):
            self._check_refusal(event)
            self._end(event.ticket, event.outcome)
            return
        assert event.batch_id not in self.in_flight
        flying = {ticket.ticket_id for batch in self.in_flight.values() for ticket in batch.tickets}
        for ticket in event.tickets:
            assert ticket.ticket_id in self.live
            assert ticket.ticket_id not in flying
            assert ticket.deadline is None or ticket.deadline > self.now
            assert ticket.ticket_id not in self.retrying or len(event.tickets) == 1
            self.retrying.discard(ticket.ticket_id)
        self._check_shape(event)
        self.in_flight[event.batch_id] = event

    def _check_shape(self, event: Dispatch) -> None:
        state = self.backends[event.backend]
        assert len({(ticket.model, ticket.merge_key) for ticket in event.tickets}) == 1
        capacity = state.models[event.tickets[0].model]
        assert state.ready
        if len(event.tickets) > 1:
            assert event.tickets[0].merge_key is not None
            assert sum(ticket.rows for ticket in event.tickets) <= capacity.max_batch_size
        model = event.tickets[0].model
        assert self._flying(event.backend, model) <= self._instances(event.backend, model)

    def _instances(self, backend: str, model: str) -> int:
        """As configured; of a model without a batch dimension as many as were learned."""
        return self.core._fleet._backends[backend]._instances(model)

    def _flying(self, backend: str, model: str) -> int:
        return sum(
            1 for batch in self.in_flight.values() if batch.backend == backend and batch.tickets[0].model == model
        )

    def _end(self, ticket: Ticket, outcome: Outcome) -> None:
        del self.live[ticket.ticket_id]  # a second ending is a KeyError
        if not any(ticket in batch.tickets for batch in self.in_flight.values()):
            self._settle(ticket, 0.0)
            self.charged.pop(ticket.ticket_id, None)
        self.retrying.discard(ticket.ticket_id)
        self.ended[outcome.name] += 1

    def _waiting(self) -> list[Ticket]:
        flying = {ticket.ticket_id for batch in self.in_flight.values() for ticket in batch.tickets}
        return [t for t in self.live.values() if t.ticket_id not in flying and t.ticket_id not in self.retrying]

    def _held(self) -> list[Ticket]:
        """Tickets that hold places in flight: at a backend, cancelled there, or between two tries."""
        held = [ticket for batch in self.in_flight.values() for ticket in batch.tickets]
        return held + [self.live[ticket_id] for ticket_id in self.retrying]

    def _fits(self, ticket: Ticket) -> bool:
        """Whether the caps of its tenant let the ticket run now."""
        settings = ticket.holder.settings
        held = [each for each in self._held() if each.holder.name == ticket.holder.name]
        of_model = [each for each in held if each.model == ticket.model]
        cap = settings.model_caps.get(ticket.model, Cap(None, None))
        return all(
            bound is None or used <= bound
            for used, bound in (
                (len(held) + 1, settings.max_in_flight),
                (sum(each.rows for each in held) + ticket.rows, settings.max_rows_in_flight),
                (len(of_model) + 1, cap.max_in_flight),
                (sum(each.rows for each in of_model) + ticket.rows, cap.max_rows_in_flight),
            )
        )

    def _free(self, model: str, *, ready_batches: int) -> bool:
        """Whether a ready backend has an instance idle, or a place for so many batches beyond its instances."""
        return any(
            state.ready
            and model in state.models
            and self._closed(name, model)
            and model not in self.core._lanes.yielding
            and self._suits(name, model)
            and self._flying(name, model) < self._instances(name, model) + ready_batches
            for name, state in self.backends.items()
        )

    def _full(self, ticket: Ticket) -> bool:
        """Whether as many wait already as the ticket's policy lets wait, beside what idle instances take at once."""
        policy, model = ticket.policy, ticket.model
        if policy is None or policy.max_queued is None:
            return False
        waiting = sum(1 for each in self._waiting() if (each.model, each.policy) == (model, policy))
        ready = [name for name, state in self.backends.items() if state.ready and model in state.models]
        spare = sum(self._instances(name, model) - self._flying(name, model) for name in ready)
        return waiting - spare >= policy.max_queued

    def _suits(self, backend: str, model: str) -> bool:
        """Whether whatever may run is within max_batch_size there, or nowhere."""
        offers = {
            name: state.models[model] for name, state in self.backends.items() if state.ready and model in state.models
        }
        rows = {name: max(1, offer.max_batch_size) for name, offer in offers.items()}
        return all(t.rows <= rows[backend] or t.rows > max(rows.values()) for t in self._able(model))

    def _closed(self, backend: str, model: str) -> bool:
        """Whether the breaker lets a batch of the model out."""
        breaker = self.core._fleet._backends[backend].breakers.get(model)
        return breaker is None or breaker.takes_batch

    def _able(self, model: str) -> list[Ticket]:
        """Tickets of the model that may run: retries, and the first of each tenant and class whose caps let it."""
        heads: dict[tuple[str, str], Ticket] = {}
        for ticket in sorted(self._waiting(), key=lambda each: (each.delayed, each.due, each.ticket_id)):
            if ticket.model == model:
                heads.setdefault((ticket.holder.name, ticket.priority_class), ticket)
        retrying = [self.live[ticket_id] for ticket_id in self.retrying if self.live[ticket_id].model == model]
        return retrying + [ticket for ticket in heads.values() if self._fits(ticket)]
