"""A backend that was ready and is not any more: requests wait for it."""

import asyncio
from typing import Any

import grpc
import pytest

from scheduler.triton import catalog


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that are soon late."""
    monkeypatch.setattr(catalog, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(catalog, "PROBE_INTERVAL_S", 0.02)
    monkeypatch.setattr(catalog, "LOOKUP_INTERVAL_S", 0.0)


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def reason(error: Any) -> str | None:
    return dict(tuple(error.trailing_metadata() or ())).get("fairlane-reason")


async def test_server_that_stands_still_costs_nobody_an_answer(
    serve: Any, eventually: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve()
    served.triton.hold()
    before = [asyncio.ensure_future(served.infer(request_of([n, n], "unbatched"))) for n in range(5)]
    await eventually(lambda: served.app.snapshot().queued == 3)
    served.triton.stand_still()
    await eventually(lambda: not served.app.ready)
    meanwhile = [asyncio.ensure_future(served.infer(request_of([n, n], "unbatched"))) for n in range(5, 8)]
    await eventually(lambda: served.app.snapshot().queued == 6)
    served.triton.release()
    served.triton.go_on()
    answers = await asyncio.gather(*before, *meanwhile)
    assert [rows_of(answer) for answer in answers] == [[n, n] for n in range(8)]
    assert len(served.triton.requests) == 8


async def test_model_that_was_never_known_is_unknown_also_while_the_backend_is_missed(
    serve: Any, eventually: Any, request_of: Any
) -> None:
    served = await serve()
    served.triton.stand_still()
    await eventually(lambda: not served.app.ready)
    error = await refusal(served.infer(request_of([[1]], "nonesuch")))
    assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
    served.triton.go_on()


async def test_models_of_a_server_that_comes_back_may_be_loaded_one_by_one(
    serve: Any, eventually: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve()
    served.triton.stand_still()
    await eventually(lambda: not served.app.ready)
    models = dict(served.triton.models)
    del served.triton.models["identity"]
    served.triton.go_on()
    await eventually(lambda: served.app.ready)
    waiting = asyncio.ensure_future(served.infer(request_of([[1]])))
    assert rows_of(await served.infer(request_of([[2]], "no_sevens"))) == [[2]]
    await eventually(lambda: served.app.snapshot().queued == 1)
    served.triton.models = models
    assert rows_of(await waiting) == [[1]]


async def test_model_that_does_not_come_back_is_unknown_when_the_outage_is_over(
    serve: Any, eventually: Any, request_of: Any
) -> None:
    served = await serve(limits={"outage_s": 0.5})
    served.triton.stand_still()
    await eventually(lambda: not served.app.ready)
    del served.triton.models["identity"]
    served.triton.go_on()
    await eventually(lambda: served.app.ready)
    assert reason(await refusal(served.infer(request_of([[1]])))) == "NO_BACKEND"
    told = {reason(await refusal(served.infer(request_of([[1]], "nonesuch")))) for _ in range(3)}
    assert told == {"UNKNOWN_MODEL"}
    # By then the catalogue has looked again, and forgotten what is not waited for any more.
    assert reason(await refusal(served.infer(request_of([[1]])))) == "UNKNOWN_MODEL"


async def test_unloaded_model_is_unknown_at_once(serve: Any, eventually: Any, request_of: Any) -> None:
    served = await serve()
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([n, n], "unbatched"))) for n in range(3)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    await eventually(lambda: served.app.snapshot().queued == 1)
    del served.triton.models["unbatched"]
    done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert [reason(each.exception()) for each in done] == ["NO_BACKEND"]
    assert reason(await refusal(served.infer(request_of([1, 1], "unbatched")))) == "UNKNOWN_MODEL"
    served.triton.release()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_backend_that_was_never_there_is_not_waited_for(serve: Any, request_of: Any) -> None:
    served = await serve(backends=[{"name": "nowhere", "grpc": "127.0.0.1:1"}])
    error = await refusal(served.infer(request_of([[1]])))
    assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "NO_BACKEND")
