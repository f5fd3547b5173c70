"""ModelStreamInfer: many requests on one stream, each of them scheduled.

Order is Triton's (its stream_infer_handler.cc): the answers of models with one response a request come in the
order of the requests, those of decoupled models as they are made. A request that fails is answered in its place
by an error message; with the header `triton_grpc_error: true` the first error ends the stream instead.

Only so many requests of a stream are taken in before their answers have left, so a client that does not read is not
read from either, and one that sends all at once leaves the event loop to others.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple

from tritonclient.grpc import service_pb2

from scheduler.edge.status import Status, of_oversized

GRPC_ERROR_HEADER: Final = "triton_grpc_error"
FINAL: Final = "triton_final_response"


class StreamEnded(Exception):
    """The stream ends with a status: the client asked for gRPC errors, and a request failed."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class Responses:
    """Where the responses of one request to a decoupled model go; see triton/decoupled.py's ResponseStream."""

    def __init__(self, write: Callable[[Any], Awaitable[None]], *, ends_at_error: bool) -> None:
        self.ends_at_error = ends_at_error
        self._write = write
        self._closers: list[Callable[[], object]] = []
        self._closed = False

    async def put(self, response: Any) -> None:
        """Send one response; returns when the client has room for more."""
        if not self._closed:
            await self._write(response)

    def on_close(self, close: Callable[[], object]) -> None:
        """Call `close` when nobody waits for responses any longer."""
        if self._closed:
            close()
        self._closers.append(close)

    def close(self) -> None:
        """Nobody waits any longer."""
        self._closed = True
        for close in self._closers:
            close()


class Turn(NamedTuple):
    """When a request may go to Triton: after the one before it of its sequence.

    Attributes:
        sequence: the sequence; None where it is of none.
        before: set when the one before it is answered.
        answered: to be set when it is answered itself.
    """

    sequence: tuple[str, str] | None
    before: asyncio.Event
    answered: asyncio.Event


# Makes the answer of one request: a response, None where it has sent its responses itself, or a status.
Answer = Callable[[Any, Responses], Awaitable["Any | Status | None"]]


class InferenceStream:
    """One ModelStreamInfer call.

    Args:
        answer: schedules one request; never raises but for cancellation.
        in_order: tells whether the request's answer must keep its place among the stream's.
        write: sends one `ModelStreamInferResponse`.
        outstanding: requests taken in whose answers have not left, at most.
        message_bytes: of one response, at most; a larger one is an error in its place.
        grpc_error: whether the first error ends the stream.
    """

    def __init__(
        self,
        answer: Answer,
        in_order: Callable[[Any], Awaitable[bool]],
        write: Callable[[Any], Awaitable[None]],
        *,
        outstanding: int,
        message_bytes: int,
        grpc_error: bool,
    ) -> None:
        self._answer = answer
        self._in_order = in_order
        self._write = write
        self._grpc_error = grpc_error
        self._writing = asyncio.Lock()
        self._message_bytes = message_bytes
        self._room = asyncio.Semaphore(outstanding)
        self._last_written = _done()
        # Of each sequence that has a request under way: when it is answered.
        self._sequences: dict[tuple[str, str], asyncio.Event] = {}

    async def run(self, requests: AsyncIterator[Any]) -> None:
        """Answer until the client has no more requests and all are answered.

        Raises:
            StreamEnded: with `grpc_error`, at the first error.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                async for request in requests:
                    await self._room.acquire()
                    tasks.create_task(await self._started(request))
        except BaseExceptionGroup as group:
            # The tasks fail in no other way: their errors are answers.
            raise _first(group) from None

    async def _started(self, request: Any) -> Any:
        """The coroutine that answers the request, with its place in the order taken."""
        before, after = self._last_written, None
        if await self._in_order(request):
            after = self._last_written = asyncio.Event()
        return self._one(request, before, after, self._turn(request))

    async def _one(self, request: Any, before: asyncio.Event, after: asyncio.Event | None, turn: Turn) -> None:
        responses = Responses(self._send_one_of_many, ends_at_error=self._grpc_error)
        try:
            await turn.before.wait()
            answer = await self._answer(request, responses)
            self._pass_on(turn)
            if after is not None:
                await before.wait()
            answer = self._of_a_size(answer)
            if isinstance(answer, Status):
                if self._grpc_error:
                    # Never released: gRPC cannot end a stream while a write is under way.
                    await self._writing.acquire()
                    raise StreamEnded(answer)
                answer = _error(request, answer)
            if answer is not None:
                await self._send(answer)
        finally:
            responses.close()
            self._pass_on(turn)
            if after is not None:
                after.set()
            self._room.release()

    async def _send(self, response: Any) -> None:
        """Write; one at a time, as gRPC wants it."""
        async with self._writing:
            await self._write(response)

    async def _send_one_of_many(self, response: Any) -> None:
        """A decoupled model's; those that come after one that is too large can still be sent."""
        sized = self._of_a_size(response)
        if isinstance(sized, Status):
            final = response.infer_response.parameters[FINAL].bool_param
            sized = _error(response.infer_response, sized)
            sized.infer_response.parameters[FINAL].bool_param = final
        await self._send(sized)

    def _of_a_size(self, answer: Any) -> Any:
        """The answer, or what stands in the place of one that is larger than a message may be."""
        if not isinstance(answer, service_pb2.ModelStreamInferResponse):
            return answer
        return of_oversized(answer, answer.infer_response, self._message_bytes) or answer

    def _turn(self, request: Any) -> Turn:
        """Requests of one sequence go to Triton one after the other."""
        answered = asyncio.Event()
        if "sequence_id" not in request.parameters:
            return Turn(None, _done(), answered)
        parameter = request.parameters["sequence_id"]
        given = getattr(parameter, parameter.WhichOneof("parameter_choice") or "string_param")
        sequence = (request.model_name, str(given))
        before = self._sequences.get(sequence) or _done()
        self._sequences[sequence] = answered
        return Turn(sequence, before, answered)

    def _pass_on(self, turn: Turn) -> None:
        """The next one of the sequence may go; where there is none, nothing is kept of a name of any length."""
        turn.answered.set()
        if turn.sequence is not None and self._sequences.get(turn.sequence) is turn.answered:
            del self._sequences[turn.sequence]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def streamed(answer: Any) -> Any:
    """A `ModelInferResponse` as the only and last response of a request on a stream."""
    response = service_pb2.ModelStreamInferResponse(infer_response=answer)
    response.infer_response.parameters[FINAL].bool_param = True
    return response


def _error(request: Any, status: Status) -> Any:
    """As Triton tells it, and Fairlane's reason and pushback as parameters: there are no trailers for one request."""
    response = service_pb2.ModelStreamInferResponse(error_message=status.message)
    about = response.infer_response
    about.id, about.model_name, about.model_version = request.id, request.model_name, request.model_version
    about.parameters[FINAL].bool_param = True
    about.parameters["fairlane_code"].string_param = status.code.name
    trailers = dict(status.trailers)
    if "fairlane-reason" in trailers:
        about.parameters["fairlane_reason"].string_param = str(trailers["fairlane-reason"])
    if "grpc-retry-pushback-ms" in trailers:
        about.parameters["fairlane_pushback_ms"].int64_param = int(trailers["grpc-retry-pushback-ms"])
    return response


def _done() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
