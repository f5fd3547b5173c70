"""A backend whose answers have fewer rows than were asked: nobody gets another's rows, and nobody waits for ever."""

import asyncio
from typing import Any


async def test_batch_answered_with_too_few_rows_is_asked_again_one_by_one_and_each_gets_rows_of_its_own(
    serve: Any, request_of: Any, rows_of: Any, eventually: Any
) -> None:
    served = await serve()
    served.triton.hold()
    requests = [request_of([[n]] * (1 + n % 2), model="short") for n in range(8)]
    asked = [asyncio.ensure_future(served.infer(each)) for each in requests]
    await eventually(lambda: served.app.snapshot().queued + served.app.snapshot().in_flight == 8)
    served.triton.release()
    # Alone, each has what the backend says of it, as from Triton itself: the first of its rows, and nobody else's.
    assert [rows_of(answer) for answer in await asyncio.gather(*asked)] == [[[n]] for n in range(8)]
    # The first left alone; the others came together, were not split by guess, and were asked again.
    assert sum(len(each.raw_input_contents) > 0 for each in served.triton.requests) > 8
