"""Parameters of answers of merged requests: each rider has what it would have alone."""

import asyncio
from typing import Any

from scheduler.triton.fake import FakeModel


async def answers(served: Any, request_of: Any, model: str) -> list[tuple[int, int]]:
    """(rows, the parameter `n`) of several requests at once: enough for a batch of some of them."""
    served.triton.hold()
    sent = [asyncio.create_task(served.infer(request_of([[n]] * (1 + n % 2), model=model))) for n in range(6)]
    for _ in range(10_000):  # until all have come in
        if served.app.snapshot().queued + served.app.snapshot().in_flight == len(sent):
            break
        await asyncio.sleep(0)
    served.triton.release()
    return [(1 + n % 2, (await each).parameters["n"].int64_param) for n, each in enumerate(sent)]


async def test_parameters_that_are_the_models_are_handed_to_every_rider(serve: Any, request_of: Any) -> None:
    served = await serve()
    served.triton.models["variant"] = FakeModel("variant", tell=lambda _: {"n": 7})
    await served.app._catalog.refresh()
    for _ in range(5):
        assert {told for _, told in await answers(served, request_of, "variant")} == {7}
    # Merged still, once that was seen of requests alone.
    assert max(request.inputs[0].shape[0] for request in served.triton.requests[-6:]) > 2
    assert not served.app._service._checks.stopped("variant")


async def test_parameters_of_a_request_keep_the_models_requests_alone(serve: Any, request_of: Any) -> None:
    served = await serve()
    served.triton.models["counts"] = FakeModel("counts", tell=lambda tensors: {"n": len(tensors["INPUT"])})
    await served.app._catalog.refresh()
    for _ in range(5):
        assert all(rows == told for rows, told in await answers(served, request_of, "counts"))
    assert served.app._service._checks.stopped("counts")
    assert max(request.inputs[0].shape[0] for request in served.triton.requests[-6:]) <= 2
