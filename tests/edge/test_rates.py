"""What a caller is told whose tenant has a rate, in each unit."""

from typing import Any

import grpc
import pytest


@pytest.mark.parametrize(
    ("rate", "burst", "words", "pushback_ms"),
    [
        ({"rows": 1e-4}, 10, "0.0001 rows a second, 10 at once", 20_000_000),
        (1e-4, 2, "0.0001 requests a second, 2 at once", 10_000_000),
        # Nothing is known of the model at first: 5 ms a row. What the first two took comes back or is added.
        ({"seconds": 1e-6}, 1e-4, "1e-06 seconds of service a second, 0.0001 at once", None),
    ],
)
async def test_beyond_the_rate_the_caller_is_told_it_and_when_to_come_again(
    serve: Any, request_of: Any, rate: Any, burst: float, words: str, pushback_ms: int | None
) -> None:
    served = await serve(tenants={"default": {"rate_per_s": rate, "burst": burst}})

    async def ask_thrice() -> None:
        for _ in range(3):
            await served.infer(request_of([[1], [2], [3], [4]]))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask_thrice()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert words in (caught.value.details() or "")
    trailers = dict(tuple(caught.value.trailing_metadata()))
    assert trailers["fairlane-reason"] == "RATE_LIMITED"
    told_ms = int(trailers["grpc-retry-pushback-ms"])
    # A little came back since the first request.
    assert 0 < told_ms <= (pushback_ms or 86_400_000)
    assert pushback_ms is None or told_ms > pushback_ms - 120_000
