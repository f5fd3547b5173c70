"""The asyncio shell round the core: feed it, drain its events, re-arm one timer.

Everything runs on one event loop, so nothing here locks. The shape is aioquic's: a sans-I/O engine and
one small shell that owns the clock, the tasks and the futures.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from scheduler.core.backends.backend import BackendState, Batch
from scheduler.core.backends.patience import Statement
from scheduler.core.events import Abandon, Dispatch, Event, Evict, GiveUp, Inquire, Reject
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.scheduler import Scheduler
from scheduler.core.settings import CoreSettings
from scheduler.core.snapshot import Snapshot
from scheduler.core.ticket import Ticket, TicketState
from scheduler.telemetry.hooks import NULL, Telemetry

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")
Request_contra = TypeVar("Request_contra", contravariant=True)
Response_co = TypeVar("Response_co", covariant=True)

# Another scheduler, or the next life of this one, is there by then.
CLOSED_PUSHBACK_S: Final = 1.0
# Requests of a batch that a line of the log names.
NAMED: Final = 3
# What a run is cancelled with whose answer nobody waits for: its backend may still be at work.
NOBODY_WAITS: Final = "nobody waits for the answer"


class Refused(Exception):
    """The scheduler said no: `outcome` and `detail` tell why, `pushback_s` when to come again (None: do not)."""

    def __init__(self, ticket: Ticket, outcome: Outcome, pushback_s: float | None, detail: str = "") -> None:
        super().__init__(f"{outcome.name}: class {ticket.priority_class}, tenant {ticket.tenant}, model {ticket.model}")
        self.ticket = ticket
        self.outcome = outcome
        self.pushback_s = pushback_s
        self.detail = detail


class BatchError(Exception):
    """A batch got no usable answer; `verdict` tells in which way."""

    def __init__(self, message: str, verdict: Verdict) -> None:
        super().__init__(message)
        self.verdict = verdict


class Runner(Protocol[Request_contra, Response_co]):
    """What takes a batch to a backend."""

    async def run(
        self,
        backend: str,
        requests: Sequence[Request_contra],
        timeout_s: float | None,
        hear: Callable[[], None],
    ) -> Sequence[Response_co]:
        """Send the requests as one, and return one response for each, in order.

        Calls `hear` for each part of an answer that comes in parts.

        It is cancelled with NOBODY_WAITS when nobody waits for the answer any more. It may then go on until its
        backend is done with it, and raise BatchError with ABANDONED: until then the place counts as taken. Cancelled
        in any other way, it ends at once: the answer has not come for too long, or the driver is closed.

        Raises:
            BatchError: the backend answered with an error, or not at all.
        """

    async def inquire(self, backend: str, model: str) -> Statement:
        """Ask the backend about a model of which a batch is overdue; raises nothing."""

    def name(self, request: Request_contra) -> str:
        """What the log calls a request."""


@dataclass(slots=True)
class _Pending(Generic[Request, Response]):
    """A request whose ticket has not ended."""

    ticket: Ticket
    request: Request
    future: asyncio.Future[Response]


class Driver(Generic[Request, Response]):
    """Runs a core on the event loop it is made in."""

    def __init__(self, core: Scheduler, runner: Runner[Request, Response], telemetry: Telemetry = NULL) -> None:
        self._core = core
        self._telemetry = telemetry
        self._runner = runner
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, _Pending[Request, Response]] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        # Batches that nobody waits for, and whose runs have not ended.
        self._unwanted: set[int] = set()
        self._inquiries: set[asyncio.Task[None]] = set()
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        self._pump_due = False
        self._last_ticket_id = 0
        self._became_idle = asyncio.Event()

    def next_ticket_id(self) -> int:
        """A number that no ticket of this driver has had."""
        self._last_ticket_id += 1
        return self._last_ticket_id

    @property
    def last_ticket_id(self) -> int:
        """The last number that was given."""
        return self._last_ticket_id

    @property
    def queued(self) -> int:
        """Requests that wait, over all models."""
        return self._core.queued

    def now(self) -> float:
        """The core's clock: monotonic seconds."""
        return self._loop.time()

    async def submit(self, ticket: Ticket, request: Request) -> Response:
        """Queue the request, and wait for its answer.

        Cancelling the caller frees the ticket's place in the queue at once.

        Raises:
            Refused: refused on arrival, or evicted from the queue.
            BatchError: the backend failed this request.
        """
        self._core.submit(ticket, now=self.now())
        if ticket.state is TicketState.ENDED:
            raise self._rejected(ticket)
        future: asyncio.Future[Response] = self._loop.create_future()
        self._pending[ticket.ticket_id] = _Pending(ticket, request, future)
        self._pump_soon()
        try:
            return await future
        except asyncio.CancelledError:
            now = self.now()
            self._core.cancel(ticket.ticket_id, now=now)
            self._telemetry.cancelled(ticket, now=now)
            self._pump_soon()
            raise
        finally:
            self._pending.pop(ticket.ticket_id, None)
            # The traceback of a refusal holds this frame, and the future holds the refusal: a cycle for the collector,
            # hundreds of times a second, unless it is cut here.
            del future

    def set_backend(self, state: BackendState) -> None:
        """Report a backend or a change of it."""
        self._core.set_backend(state, now=self.now())
        self._telemetry.backend(state)
        self._pump_soon()

    def remove_backend(self, name: str) -> None:
        """Let a backend go: what is in flight there ends, and nothing new is sent there."""
        self._core.remove_backend(name, now=self.now())
        self._telemetry.removed(name)
        self._pump_soon()

    def reconfigure(self, settings: CoreSettings) -> None:
        """Go on with these settings.

        Raises:
            ValueError: the classes are not those of before.
        """
        self._core.reconfigure(settings, now=self.now())
        self._pump_soon()

    def offers(self, model: str) -> bool:
        """Whether requests for the model may wait: a backend serves it, or one is missed that did."""
        return self._core.offers(model)

    def snapshot(self) -> Snapshot:
        """The core's state."""
        return self._core.snapshot(now=self.now())

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new tickets and wait until the accepted ones have ended.

        Returns:
            False where some were still there after `timeout_s` seconds.
        """
        self._core.drain(now=self.now())
        self._draining = True
        for batch_id in self._unwanted:
            self._runs[batch_id].cancel()
        self._pump_soon()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._core.idle:
                    self._became_idle.clear()
                    await self._became_idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """End everything now: requests that have no answer yet are refused as DRAINING."""
        for pending in self._pending.values():
            if not pending.future.done():
                self._core.cancel(pending.ticket.ticket_id, now=self.now())
                self._refuse(Evict(pending.ticket, Outcome.DRAINING, CLOSED_PUSHBACK_S))
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._runs.values(), *self._inquiries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pump_soon(self) -> None:
        """Drain events at the end of this turn of the loop: what arrives in one turn may ride together."""
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        while (event := self._core.next_event()) is not None:
            self._carry_out(event)
        for batch_id in self._unwanted:
            if self._core.batch(batch_id) is None:  # given up meanwhile
                self._runs[batch_id].cancel()
        self._arm_timer()
        if self._core.idle:
            self._became_idle.set()

    def _rejected(self, ticket: Ticket) -> Refused:
        """The refusal of a ticket that was refused on arrival: whoever floods gets no turn of the loop for it.

        Its event is the last that is ready; batches are formed only behind it, so none is here.
        """
        while not isinstance(event := self._core.next_event(), Reject):
            if event is None:
                raise RuntimeError(f"ticket {ticket.ticket_id}: expected the event that tells why it was refused")
            self._carry_out(event)
        self._carry_out(event)
        return Refused(ticket, event.outcome, event.pushback_s, event.detail)

    def _carry_out(self, event: Event) -> None:
        if isinstance(event, Dispatch):
            self._launch(event)
        elif isinstance(event, Abandon):
            self._abandon(event)
        elif isinstance(event, Inquire):
            task = self._loop.create_task(self._inquire(event))
            self._inquiries.add(task)
            task.add_done_callback(self._inquiries.discard)
        elif isinstance(event, GiveUp):
            log.warning("%s: it is given up (%s)", self._told(event), event.why)
        else:
            self._refuse(event)

    def _launch(self, dispatch: Dispatch) -> None:
        # Looked up now: a caller that leaves before the task runs takes its request along.
        requests = [self._pending[ticket.ticket_id].request for ticket in dispatch.tickets]
        batch = self._core.batch(dispatch.batch_id)
        if batch is not None:
            self._telemetry.dispatched(batch)
        task = self._loop.create_task(self._run(dispatch, batch, requests))
        self._runs[dispatch.batch_id] = task
        task.add_done_callback(lambda _: self._ended(dispatch.batch_id))

    def _ended(self, batch_id: int) -> None:
        del self._runs[batch_id]
        self._unwanted.discard(batch_id)

    def _abandon(self, event: Abandon) -> None:
        # Not before its task has begun, which may have been made in this turn of the loop: it reports the end.
        run = self._runs.get(event.batch_id)
        if run is None:
            return
        if self._draining or self._core.batch(event.batch_id) is None:
            self._loop.call_soon(run.cancel)
        else:
            self._unwanted.add(event.batch_id)
            self._loop.call_soon(run.cancel, NOBODY_WAITS)

    def _refuse(self, event: Reject | Evict) -> None:
        self._telemetry.refused(event, now=self.now())
        pending = self._pending.get(event.ticket.ticket_id)
        if pending is not None and not pending.future.done():
            pending.future.set_exception(Refused(event.ticket, event.outcome, event.pushback_s))

    async def _inquire(self, event: Inquire) -> None:
        """Ask about an overdue batch, and tell of it the first time."""
        told = self._told(event)
        statement = await self._runner.inquire(event.backend, event.model)
        if not event.again:
            log.warning("%s: %s", told, _found(statement))
        self._core.testify(event.batch_id, statement, now=self.now())
        self._pump_soon()

    def _told(self, event: Inquire | GiveUp) -> str:
        """Which requests have no answer, from whom, and for how long."""
        waiting = [self._pending[each.ticket_id] for each in event.tickets if each.ticket_id in self._pending]
        names = ", ".join(self._runner.name(each.request) for each in waiting[:NAMED]) or "nobody waits any more"
        more = f" and {len(waiting) - NAMED} more" if len(waiting) > NAMED else ""
        return (
            f"model {event.model} on backend {event.backend}: no answer in {event.silent_s:.3g} s, where "
            f"{event.usual_s:.3g} s were expected ({names}{more})"
        )

    async def _run(self, dispatch: Dispatch, batch: Batch | None, requests: Sequence[Request]) -> None:
        """Take one batch to its backend, and give its tickets their answers."""
        error: BaseException | None = None
        responses: Sequence[Response] = ()
        try:
            responses = await self._runner.run(
                dispatch.backend, requests, self._timeout_s(dispatch.tickets), lambda: self._hear_of(dispatch.batch_id)
            )
            if len(responses) != len(requests):
                raise _wrong_count(len(requests), len(responses))  # noqa: TRY301
        except BaseException as caught:
            # Whatever happened, cancellation included, the tickets' places must come back.
            error = caught
        now = self.now()
        verdict = _verdict(error)
        ended = self._core.complete(dispatch.batch_id, verdict, now=now)
        if batch is not None:
            self._telemetry.completed(batch, verdict, ended, now=now)
        if error is None:
            answers = dict(zip((ticket.ticket_id for ticket in dispatch.tickets), responses, strict=True))
            self._answer(ended, answers)
        else:
            self._fail(ended, error)
        self._pump_soon()
        if isinstance(error, asyncio.CancelledError):
            raise error

    def _hear_of(self, batch_id: int) -> None:
        if self._core.hear_of(batch_id, now=self.now()):
            self._pump_soon()

    def _answer(self, ended: list[Ticket], answers: dict[int, Response]) -> None:
        for ticket in ended:
            pending = self._pending.get(ticket.ticket_id)
            if pending is not None and not pending.future.done():
                pending.future.set_result(answers[ticket.ticket_id])

    def _fail(self, ended: list[Ticket], error: BaseException) -> None:
        for ticket in ended:
            pending = self._pending.get(ticket.ticket_id)
            if pending is not None and not pending.future.done():
                pending.future.set_exception(error)

    def _timeout_s(self, tickets: Sequence[Ticket]) -> float | None:
        """What remains to the last deadline of the batch; None where one ticket has none."""
        deadlines = [ticket.deadline for ticket in tickets]
        if any(deadline is None for deadline in deadlines):
            return None
        return max(0.0, max(deadline for deadline in deadlines if deadline is not None) - self.now())

    def _arm_timer(self) -> None:
        wakeup = self._core.next_wakeup()
        if self._timer is not None:
            if wakeup == self._timer.when():
                return
            self._timer.cancel()
        self._timer = None if wakeup is None else self._loop.call_at(wakeup, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._core.tick(now=self.now())
        self._pump()


def _found(statement: Statement) -> str:
    """What an inquiry has found, and what follows."""
    if not statement.live:
        return "its server does not answer either"
    if not statement.served:
        return "its server does not have the model any more"
    return f"its server lives and has the model, which has done {statement.inferences} inferences: it is waited for"


def _wrong_count(expected: int, got: int) -> BatchError:
    return BatchError(f"expected {expected} responses, got {got}", Verdict.GARBLED)


def _verdict(error: BaseException | None) -> Verdict:
    if error is None:
        return Verdict.SUCCEEDED
    if isinstance(error, BatchError):
        return error.verdict
    if isinstance(error, asyncio.CancelledError):
        return Verdict.ABANDONED
    return Verdict.FAILED  # an error on this side, which a request may have caused
