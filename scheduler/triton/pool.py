"""The backends' channels, and batches on their way: the driver's Runner."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.core.backends.patience import Statement
from scheduler.core.outcome import Outcome, Verdict
from scheduler.core.ticket import Ticket
from scheduler.driver import BatchError
from scheduler.telemetry.hooks import NULL, Telemetry
from scheduler.triton.answer import parsed
from scheduler.triton.answer_parameters import AnswerParameters, Parameters
from scheduler.triton.channel import Channel, Connect
from scheduler.triton.decoupled import BegunStream, ResponseStream, relay_responses
from scheduler.triton.exclusive import DRAIN_S, Exclusives
from scheduler.triton.grpcio_channel import grpcio_channel
from scheduler.triton.inquiry import inquire
from scheduler.triton.merge import SplitError, merge, split, unlike
from scheduler.triton.pad import Padding
from scheduler.triton.security import PLAIN, BackendSecurity
from scheduler.triton.sequence_id import RestoringStream, SequenceIds, restore
from scheduler.triton.uncancelled import UncancelledCalls, Unwanted, cancellable

log = logging.getLogger(__name__)

# Codes that are not about the requests. With the others the model answered: a request may be guilty.
VERDICTS: Final = {
    grpc.StatusCode.UNAVAILABLE: Verdict.UNAVAILABLE,
    # Not by us: a model may say so, and so does a server that stops.
    grpc.StatusCode.CANCELLED: Verdict.UNAVAILABLE,
    # The deadline of the requests has passed, which says nothing of the backend.
    grpc.StatusCode.DEADLINE_EXCEEDED: Verdict.ABANDONED,
}
# How Triton refuses by a model's own queue policy, always as UNAVAILABLE (its core's priority_queue.cc).
OUTCOMES: Final = {
    "Exceeds maximum queue size": Outcome.QUEUE_FULL,
    "Request timeout expired": Outcome.QUEUE_TIMEOUT,
}
# A healthy server answers in a millisecond.
LIVE_TIMEOUT_S: Final = 2.0
# gRPC's words for a call that has not left, as there was nothing to connect to.
UNREACHED: Final = "failed to connect to "
# A channel fails its calls a moment before it says that it has lost its connection.
SETTLE_S: Final = 0.01


class BackendFailure(BatchError):
    """A backend failed a request: its own code and message, prefixed with the model.

    Attributes:
        code: the backend's.
        outcome: where the model's own queue policy refused the request: how; None: it did not.
    """

    def __init__(self, model: str, code: grpc.StatusCode, details: str, verdict: Verdict | None = None) -> None:
        self.outcome = _queue_outcome(details) if code is grpc.StatusCode.UNAVAILABLE else None
        # A full queue says nothing against its backend, and nobody is sent there twice by it.
        by_code = Verdict.FAILED if self.outcome else VERDICTS.get(code, Verdict.FAILED)
        super().__init__(f"model {model}: {details}", verdict or by_code)
        self.code = code


class Call:
    """A request on its way to a backend: the message as the client sent it, and its ticket.

    Attributes:
        queued_at: when it was ready to be queued, in the event loop's seconds.
        stream: where a decoupled model's responses go; None for a request that has one response.
        headers: of the request, for the model.
        padding: how it may be padded to ride with longer ones; None: it may not.
        alone: whether nothing else of the model may be at its backend with it.
        expected: the parameters that a merged answer had, and this one alone has to have; None: there was none.
        sent_at: when it was last handed to a backend, in the event loop's seconds.
    """

    __slots__ = ("alone", "expected", "headers", "padding", "queued_at", "request", "sent_at", "stream", "ticket")

    def __init__(
        self,
        request: Any,
        ticket: Ticket,
        queued_at: float = 0.0,
        stream: ResponseStream | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        padding: Padding | None = None,
    ) -> None:
        self.request = request
        self.ticket = ticket
        self.queued_at = queued_at
        self.stream = stream
        self.headers = headers
        self.padding = padding
        self.alone = False
        self.expected: Parameters | None = None
        self.sent_at = 0.0


class MergeWatch(Protocol):
    """Hears of merged batches."""

    def stopped(self, model: str) -> bool:
        """Whether the model's requests must ride alone from now on."""

    def joined_by_triton(self, model: str) -> bool:
        """Whether they must, and Triton itself would run those together that it has at a time."""

    def unsplit(self, model: str, why: str) -> None:
        """A merged answer cannot be told apart into those of its requests, and why."""

    def merged(self, calls: Sequence[Call], answers: Sequence[Any]) -> None:
        """These calls rode together, and were answered so."""


class Pool:
    """One channel for each backend, by name.

    Args:
        telemetry: hears of what is sent.
        connect: makes a channel.

    Attributes:
        watch: hears of merged batches; None: nobody does.
    """

    def __init__(self, telemetry: Telemetry = NULL, connect: Connect = grpcio_channel) -> None:
        self.watch: MergeWatch | None = None
        self._telemetry = telemetry
        self._sequence_ids = SequenceIds()
        self._connect = connect
        self._exclusives = Exclusives()
        self._answer_parameters = AnswerParameters()
        self._channels: dict[str, Channel] = {}
        self._stubs: dict[str, Any] = {}
        self._places: dict[str, tuple[str, BackendSecurity]] = {}
        # Backends whose server survives a cancelled call; before its version is known, none does.
        self._cancellable: set[str] = set()
        self._uncancelled = UncancelledCalls()
        # Inferences in flight by stub, the channels of stubs that are retired, and those that are being closed.
        self._in_flight: Counter[Any] = Counter()
        self._retired: dict[Any, Channel] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def set_version(self, name: str, version: str) -> None:
        """What the backend's server says of its version; whether its calls may be cancelled depends on it."""
        if cancellable(version):
            self._cancellable.add(name)
        else:
            self._cancellable.discard(name)

    async def connect(self, name: str, address: str, security: BackendSecurity = PLAIN) -> None:
        """Open the channel of a backend; one that the name had before is closed."""
        await self.disconnect(name)
        self.add(name, address, security)

    def add(self, name: str, address: str, security: BackendSecurity = PLAIN) -> None:
        """Open the channel of a backend; calls on one that the name had before go on to their ends.

        Raises:
            OSError: a file for TLS cannot be read.
        """
        channel = self._connect(address, security)
        self.retire(name)
        self._channels[name] = channel
        self._stubs[name] = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._places[name] = address, security

    async def renew(self, name: str) -> None:
        """Leave a backend's connection where it is dead, and nobody says so: a network may drop what it once carried.

        It is dead where the server answers on a new one and not on this. Calls in flight on it are lost.
        """
        address, security = self._places[name]
        old_stub, old = self._stubs[name], self._channels[name]
        new = self._connect(address, security)
        new_stub = service_pb2_grpc.GRPCInferenceServiceStub(new)
        if not await _answers(new_stub) or await _answers(old_stub) or not self.uses(name, old_stub):
            await new.close()
            return
        log.warning("backend %s: the connection is dead, a new one is not: what was in flight on it is lost", name)
        self._channels[name], self._stubs[name] = new, new_stub
        await old.close()

    def retire(self, name: str) -> None:
        """Send no more to a backend; its channel is closed when the inferences in flight on it have ended."""
        stub, channel = self._stubs.pop(name, None), self._channels.pop(name, None)
        self._cancellable.discard(name)
        if channel is not None:
            self._retired[stub] = channel
            self._close_unused(stub)

    async def disconnect(self, name: str) -> None:
        """Close the channel of a backend; calls in flight on it are cancelled."""
        self._stubs.pop(name, None)
        self._cancellable.discard(name)
        channel = self._channels.pop(name, None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Close every channel."""
        for name in list(self._channels):
            await self.disconnect(name)
        for channel in self._retired.values():
            await channel.close()
        await asyncio.gather(*self._closing)

    def _begun(self, stub: Any) -> None:
        self._in_flight[stub] += 1

    def _ended(self, stub: Any) -> None:
        self._in_flight[stub] -= 1
        if not self._in_flight[stub]:
            del self._in_flight[stub]
            if stub in self._retired:
                self._close_unused(stub)

    def _close_unused(self, stub: Any) -> None:
        if stub not in self._in_flight:
            closing = asyncio.ensure_future(self._retired.pop(stub).close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def stub(self, name: str) -> Any:
        """The `GRPCInferenceServiceStub` of a backend.

        Raises:
            KeyError: no such backend is connected.
        """
        return self._stubs[name]

    def uses(self, name: str, stub: Any) -> bool:
        """Whether this is still the backend's stub."""
        return self._stubs.get(name) is stub

    def names(self) -> list[str]:
        """The connected backends."""
        return list(self._stubs)

    def name(self, request: Call) -> str:
        """The request's id, as the client knows it, and whose it is."""
        request_id = request.request.id
        return f"request {request_id!r} of {request.ticket.tenant}" if request_id else f"one of {request.ticket.tenant}"

    async def inquire(self, backend: str, model: str) -> Statement:
        """Ask a backend about a model of which a batch is overdue."""
        stub = self._stubs.get(backend)
        return Statement(live=False) if stub is None else await inquire(stub, model)

    async def run(
        self, backend: str, requests: Sequence[Call], timeout_s: float | None, hear: Callable[[], None]
    ) -> Sequence[Any]:
        """Send the calls as one inference request; see driver.Runner.

        Raises:
            BackendFailure: the backend failed the batch, or did not answer.
        """
        sent_at = asyncio.get_running_loop().time()
        for call in requests:
            call.sent_at = sent_at
        messages = [call.request for call in requests]
        rows = [call.ticket.rows for call in requests]
        ticket = requests[0].ticket
        model = ticket.model
        if ticket.sequence_number:
            return [await self._step(backend, requests[0], timeout_s, hear)]
        if requests[0].stream is not None:
            await self._stream(backend, requests[0], requests[0].stream, timeout_s, hear)
            return [None]
        if len(messages) == 1:
            return [await self._single(backend, requests[0], timeout_s)]
        if self.watch is not None and self.watch.stopped(model):
            # Queued before that was known: what fails together is tried alone.
            raise BackendFailure(model, grpc.StatusCode.ABORTED, "its requests ride alone", Verdict.FAILED)
        padding = unlike(messages, requests[0].padding)
        async with self._exclusives.shared((backend, model)):
            response = await self._infer(backend, requests[0], merge(messages, rows, padding), timeout_s)
        expected = self._answer_parameters.expected(model, response)
        if expected is not None:
            for call in requests:
                call.expected = expected
            details = "the answer has parameters, and whose they are is told by each request alone"
            raise BackendFailure(model, grpc.StatusCode.INTERNAL, details, Verdict.FAILED)
        try:
            answers = split(response, messages, rows, padding)
        except SplitError as error:
            if padding is not None and self.watch is not None:
                self.watch.unsplit(model, str(error))
            # Alone, each gets whatever the model makes of it.
            raise BackendFailure(model, grpc.StatusCode.INTERNAL, str(error), Verdict.GARBLED) from error
        if self.watch is not None:
            self.watch.merged(requests, answers)
        return answers

    async def _single(self, backend: str, call: Call, timeout_s: float | None) -> Any:
        """Send one request as it is."""
        place = (backend, call.ticket.model)
        if self.watch is not None and self.watch.joined_by_triton(call.ticket.model):
            held = self._exclusives.alone(place)
        elif call.alone:
            held = self._exclusives.alone(place, DRAIN_S)
        else:
            held = self._exclusives.shared(place)
        async with held:
            answer = await self._infer(backend, call, call.request, timeout_s)
        expected, call.expected = call.expected, None
        if (
            expected is not None
            and not self._answer_parameters.got(place[1], expected, answer)
            and self.watch is not None
        ):
            self.watch.unsplit(place[1], "the answer has parameters of its own")
        return answer

    async def _step(self, backend: str, call: Call, timeout_s: float | None, hear: Callable[[], None]) -> Any:
        """Send one step of a sequence, under the sequence's own id."""
        own = self._sequence_ids.put(call.request, call.ticket.sequence_number)
        if call.stream is not None:
            return await self._stream(backend, call, RestoringStream(call.stream, own), timeout_s, hear)
        response = await self._infer(backend, call, call.request, timeout_s)
        restore(response, own)
        return response

    async def _stream(
        self, backend: str, call: Call, stream: ResponseStream, timeout_s: float | None, hear: Callable[[], None]
    ) -> None:
        """Send one request to a decoupled model, and hand on its responses until the last."""
        model, stub = call.ticket.model, self._stubs.get(backend)
        if stub is None:
            details = f"backend {backend} is not connected"
            raise BackendFailure(model, grpc.StatusCode.UNAVAILABLE, details, Verdict.UNREACHED)
        headers = self._metadata(call)
        now = asyncio.get_running_loop().time
        begun = BegunStream(stream, call.ticket, lambda: self._telemetry.first_response(call.ticket, now=now()), hear)
        self._begun(stub)
        try:
            error_message = await relay_responses(stub, call.request, begun, timeout_s, headers)
        except grpc.aio.AioRpcError as error:
            raise await self._failure(backend, model, error) from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            details = "nobody waits for the responses"
            raise BackendFailure(model, grpc.StatusCode.CANCELLED, details, Verdict.ABANDONED) from None
        finally:
            self._ended(stub)
        if error_message:
            raise BackendFailure(model, grpc.StatusCode.INTERNAL, error_message)

    def _metadata(self, call: Call) -> tuple[tuple[str, str], ...] | None:
        """Of the call to the backend: the trace that it belongs to, and what all riders' headers tell the model."""
        traced = self._telemetry.headers(call.ticket)
        return (*(traced or ()), *call.headers) if call.headers else traced

    async def _infer(self, backend: str, call: Call, request: Any, timeout_s: float | None) -> Any:
        """Send one request; `call` is one of those that ride in it."""
        model = call.ticket.model
        stub = self._stubs.get(backend)
        if stub is None:
            details = f"backend {backend} is not connected"
            raise BackendFailure(model, grpc.StatusCode.UNAVAILABLE, details, Verdict.UNREACHED)
        try:
            headers = self._metadata(call)
            may_cancel = backend in self._cancellable
            # Without a deadline where it may not: that would cancel the call at the server.
            upstream = stub.ModelInfer(request, timeout=timeout_s if may_cancel else None, metadata=headers)
            return parsed(await self._answer(stub, upstream, may_cancel=may_cancel))
        except grpc.aio.AioRpcError as error:
            raise await self._failure(backend, model, error) from error
        except Unwanted as unwanted:
            self._telemetry.unwanted(backend, model, unwanted.seconds)
            raise BackendFailure(model, grpc.StatusCode.CANCELLED, str(unwanted), Verdict.ABANDONED) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # The channel was closed under the call.
            details = f"backend {backend} was disconnected"
            raise BackendFailure(model, grpc.StatusCode.UNAVAILABLE, details, Verdict.LOST) from None

    async def _answer(self, stub: Any, upstream: Any, *, may_cancel: bool) -> Any:
        """Wait for a call, and count it as in flight until it has ended.

        Not by a callback of the call: that would make a circle of them, which holds the message until it is collected.
        """
        self._begun(stub)
        if not may_cancel:
            return await self._uncancelled.answer(upstream, lambda: self._ended(stub))
        try:
            return await upstream
        finally:
            self._ended(stub)

    async def _failure(self, backend: str, model: str, error: grpc.aio.AioRpcError) -> BackendFailure:
        verdict, details = None, error.details() or ""
        if VERDICTS.get(error.code()) is Verdict.UNAVAILABLE and not await self._connected(backend):
            verdict = Verdict.UNREACHED if details.startswith(UNREACHED) else Verdict.LOST
        return BackendFailure(model, error.code(), details, verdict)

    async def _connected(self, backend: str) -> bool:
        """Whether such an answer can have come from the server: where the connection is gone, the channel made it."""
        for wait_s in (0.0, SETTLE_S):
            await asyncio.sleep(wait_s)
            channel = self._channels.get(backend)
            if channel is None or channel.get_state() is not grpc.ChannelConnectivity.READY:
                return False
        return True


def _queue_outcome(details: str) -> Outcome | None:
    """Which of its queue's limits Triton names; a request's id may stand before it."""
    return next((outcome for words, outcome in OUTCOMES.items() if details.endswith(words)), None)


async def _answers(stub: Any) -> bool:
    """Whether the server says on this channel that it lives."""
    try:
        await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=LIVE_TIMEOUT_S)
    except (grpc.aio.AioRpcError, grpc.aio.UsageError):
        return False
    return True
