"""Callers that leave before their answer, where the backend's server may end when a call to it is cancelled."""

import asyncio
from typing import Any

import grpc
import pytest

OLD = "2.51.0"


async def served_by(serve: Any, version: str, **settings: Any) -> Any:
    served = await serve(**settings)
    served.triton.version = version
    await served.app._catalog.refresh()
    return served


async def leave(served: Any, request: Any) -> None:
    """Ask, and leave when the request is at the backend."""
    call = served.stub.ModelInfer(request)
    await served.triton.until(lambda triton: triton.in_flight)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def unwanted(served: Any) -> list[float]:
    text = served.app._observatory.metrics.exposition().decode()
    return [
        float(line.split()[-1]) for line in text.splitlines() if line.startswith("fairlane_batches_unwanted_total{")
    ]


async def test_a_call_to_a_release_that_survives_it_is_cancelled(serve: Any, request_of: Any, eventually: Any) -> None:
    served = await served_by(serve, "2.57.0")
    served.triton.hold()
    await leave(served, request_of([[1]]))
    await served.triton.until(lambda triton: not triton.in_flight)
    await eventually(lambda: not served.app.snapshot().in_flight)
    assert unwanted(served) in ([], [0.0])


@pytest.mark.parametrize("version", [OLD, "2.56.9", "fake", ""])
async def test_a_call_to_another_is_left_to_finish_and_keeps_its_place_until_then(
    serve: Any, request_of: Any, rows_of: Any, eventually: Any, version: str
) -> None:
    served = await served_by(serve, version)
    served.triton.hold()
    await leave(served, request_of([[1]]))
    await eventually(lambda: served.app.snapshot().ended["CANCELLED"] == 1)
    assert len(served.triton.in_flight) == 1
    assert served.app.snapshot().in_flight == 1
    served.triton.release()
    await eventually(lambda: not served.app.snapshot().in_flight)
    assert unwanted(served) == [1.0]
    assert rows_of(await served.infer(request_of([[2]]))) == [[2]]


async def test_a_deadline_is_answered_at_once_and_goes_no_further(serve: Any, request_of: Any, eventually: Any) -> None:
    served = await served_by(serve, OLD)
    served.triton.hold()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.infer(request_of([[1]]), timeout_s=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: served.app.snapshot().ended["DEADLINE_EXPIRED"] == 1)
    assert len(served.triton.in_flight) == 1
    served.triton.release()
    await eventually(lambda: unwanted(served) == [1.0])


async def test_a_call_that_nobody_waits_for_keeps_no_service_from_stopping(serve: Any, request_of: Any) -> None:
    served = await served_by(serve, OLD)
    served.triton.hold()
    await leave(served, request_of([[1]]))
    async with asyncio.timeout(30):
        assert await served.app.stop()  # True: all that was accepted had ended


async def test_a_call_that_hangs_gives_its_place_back_without_being_cancelled(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await served_by(serve, OLD, limits={"hang_s": 0.05, "drain_s": 1.0})
    await served.infer(request_of([[1]]))  # a shape that was answered before is not waited for so long
    served.triton.hold()
    await leave(served, request_of([[2]]))
    await eventually(lambda: not served.app._driver._runs)
    assert len(served.triton.in_flight) == 1
