"""One request to a decoupled model: any number of responses, over a stream of its own.

The stream's request side stays open until the last response: Triton 24.10 (2.51.0) crashes, the whole process,
when a stream is cancelled whose request side has been closed. So the last response has to be told from the others,
and Triton tells it only where it may send an empty one; where the client did not ask for that, it stays here.
Triton's header `triton_grpc_error` is not passed on either: with it a model's error crashes that release as well.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc

from scheduler.core.ticket import Ticket
from scheduler.triton.answer import parsed

EMPTY_FINAL: Final = "triton_enable_empty_final_response"
FINAL: Final = "triton_final_response"
# grpc.aio's word for a call that had ended when something was to be sent on it, however it ended (grpc/grpc#36066).
BROKEN_OFF: Final = (grpc.StatusCode.INTERNAL, "Internal error from Core")


class ResponseStream(Protocol):
    """Where the responses go.

    Attributes:
        ends_at_error: whether the first error ends it.
    """

    ends_at_error: bool

    async def put(self, response: Any) -> None:
        """Take one `ModelStreamInferResponse`; returns when the client has room for more."""

    def on_close(self, close: Callable[[], object]) -> None:
        """Call `close` when nobody waits for responses any longer."""


class BegunStream:
    """Responses that cannot be taken back: from the first on, their request is not sent to another backend.

    Args:
        stream: where they go.
        ticket: of their request.
        begun: called when the first one is here that is no error.
        hear: called for each.
    """

    def __init__(
        self, stream: ResponseStream, ticket: Ticket, begun: Callable[[], None], hear: Callable[[], None]
    ) -> None:
        self._stream = stream
        self._ticket = ticket
        self._begun: Callable[[], None] | None = begun
        self._hear = hear
        self.ends_at_error = stream.ends_at_error
        self.on_close = stream.on_close

    async def put(self, response: Any) -> None:
        """Take one `ModelStreamInferResponse`."""
        self._ticket.resent = True
        self._hear()
        if self._begun is not None and not response.error_message:
            self._begun()
            self._begun = None
        await self._stream.put(response)


async def relay_responses(
    stub: Any, request: Any, stream: ResponseStream, timeout_s: float | None, metadata: Any = None
) -> str:
    """Send the request, and hand on its responses until the last.

    Args:
        stub: a `GRPCInferenceServiceStub`.
        request: a `ModelInferRequest`; it will ask for an empty last response.
        stream: where the responses go.
        timeout_s: for all of it; None: no limit.
        metadata: of the call.

    Returns:
        The error that ended the stream where the first one is to do so, else nothing.

    Raises:
        grpc.aio.AioRpcError: the stream ended with an error.
        asyncio.CancelledError: this task was cancelled, or nobody waits for the responses any longer.
    """
    wants_empty = EMPTY_FINAL in request.parameters and request.parameters[EMPTY_FINAL].bool_param
    request.parameters[EMPTY_FINAL].bool_param = True
    upstream = stub.ModelStreamInfer(timeout=timeout_s, metadata=metadata)
    stream.on_close(upstream.cancel)
    try:
        await _write(upstream, request)
        while (response := await upstream.read()) is not grpc.aio.EOF:
            response = parsed(response)
            if stream.ends_at_error and response.error_message:
                return str(response.error_message)
            final = _is_final(response)
            if not final or wants_empty or response.error_message or response.infer_response.outputs:
                await stream.put(response)
            if final:
                # All is here; a call that has ended by now needs no end.
                with contextlib.suppress(grpc.aio.InternalError):
                    await upstream.done_writing()
        return ""
    finally:
        upstream.cancel()


async def _write(upstream: Any, request: Any) -> None:
    """Send the request; where the call has ended by then, that is a lost backend or a deadline that has passed."""
    try:
        await upstream.write(request)
    except grpc.aio.AioRpcError as error:
        if (error.code(), error.details()) != BROKEN_OFF:
            raise
        code = grpc.StatusCode.DEADLINE_EXCEEDED if upstream.time_remaining() == 0 else grpc.StatusCode.UNAVAILABLE
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(code, nothing, nothing, "the call to the backend broke off") from error


def _is_final(response: Any) -> bool:
    """An error from before the model ran says nothing of being the last, and is."""
    parameters = response.infer_response.parameters
    return parameters[FINAL].bool_param if FINAL in parameters else bool(response.error_message)
