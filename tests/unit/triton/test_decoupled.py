"""How a stream to a decoupled model ends when its call has ended before something could be sent on it."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from scheduler.triton.decoupled import BROKEN_OFF, FINAL, relay_responses

Code = grpc.StatusCode


class Upstream:
    """A call whose writes or whose end fail; it answers with one response, the last."""

    def __init__(self, code: Code, details: str, time_remaining_s: float | None, *, at_end: bool = False) -> None:
        self._error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)
        self._time_remaining_s = time_remaining_s
        self._at_end = at_end
        self._answers: list[Any] = [service_pb2.ModelStreamInferResponse()]
        self._answers[0].infer_response.parameters[FINAL].bool_param = True
        self.cancelled = False

    def ModelStreamInfer(self, **about: Any) -> "Upstream":  # noqa: N802
        del about
        return self

    async def write(self, request: Any) -> None:
        del request
        if not self._at_end:
            raise self._error

    async def read(self) -> Any:
        return self._answers.pop() if self._answers else grpc.aio.EOF

    async def done_writing(self) -> None:
        raise grpc.aio.InternalError('Failed "execute_batch"')

    def time_remaining(self) -> float | None:
        return self._time_remaining_s

    def cancel(self) -> None:
        self.cancelled = True


class Responses:
    """Takes them all."""

    ends_at_error = False

    async def put(self, response: Any) -> None:
        del response

    def on_close(self, close: Callable[[], object]) -> None:
        del close


@pytest.mark.parametrize(
    ("code", "details", "time_remaining_s", "told"),
    [
        (*BROKEN_OFF, None, Code.UNAVAILABLE),
        (*BROKEN_OFF, 3.0, Code.UNAVAILABLE),
        (*BROKEN_OFF, 0.0, Code.DEADLINE_EXCEEDED),
        (Code.INTERNAL, "the model's own", 0.0, Code.INTERNAL),
        (Code.UNAVAILABLE, "connection refused", 3.0, Code.UNAVAILABLE),
    ],
)
async def test_call_that_ended_before_its_request_left_is_told_as_lost_or_late(
    code: Code, details: str, time_remaining_s: float | None, told: Code
) -> None:
    upstream = Upstream(code, details, time_remaining_s)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await relay_responses(upstream, service_pb2.ModelInferRequest(), Responses(), None)
    assert error.value.code() is told
    assert upstream.cancelled


async def test_call_that_ended_before_it_could_be_closed_has_given_all_its_responses() -> None:
    upstream = Upstream(Code.OK, "", None, at_end=True)
    assert not await asyncio.wait_for(
        relay_responses(upstream, service_pb2.ModelInferRequest(), Responses(), None), timeout=5
    )
