"""Request headers on their way to the model: only those that are listed, and only among equals."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest


async def test_listed_headers_reach_the_backend_and_no_others(serve: Any, request_of: Any) -> None:
    served = await serve(forward_headers=["X-User", "x-acme-*"])
    sent = (("x-user", "u"), ("x-acme-a", "1"), ("x-other", "no"), ("x-tenant-id", "acme"), ("x-user", "v"))
    await served.infer(request_of([[1]]), metadata=sent)
    (metadata,) = served.triton.metadata
    seen = sorted((key, value) for key, value in metadata if key.startswith("x-"))
    assert seen == [("x-acme-a", "1"), ("x-user", "u"), ("x-user", "v")]


async def test_only_equal_headers_ride_together(serve: Any, request_of: Any, rows_of: Any) -> None:
    served = await serve(forward_headers=["x-user"], models={"identity": {"batch_invariant": True}})
    served.triton.hold()
    users = ["a", "b", "", *"ab" * 12]
    calls = [
        asyncio.ensure_future(served.infer(request_of([[n]]), metadata=(("x-user", user),) if user else ()))
        for n, user in enumerate(users)
    ]
    await served.triton.until(lambda triton: len(triton.in_flight) >= 1)
    served.triton.release()
    for n, answer in enumerate(await asyncio.gather(*calls)):
        assert rows_of(answer) == [[n]]
    asked = []
    for request, metadata in zip(served.triton.requests, served.triton.metadata, strict=True):
        user = dict(metadata).get("x-user", "")
        rows = np.frombuffer(request.raw_input_contents[0], np.int64).tolist()
        assert {users[row] for row in rows} == {user}
        asked.append(len(rows))
    assert max(asked) > 1


async def test_headers_that_are_not_listed_part_nobody(serve: Any, request_of: Any) -> None:
    served = await serve(forward_headers=["x-user"])
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n]]), metadata=(("x-trace", str(n)),))) for n in range(12)]
    await served.triton.until(lambda triton: len(triton.in_flight) >= 1)
    served.triton.release()
    await asyncio.gather(*calls)
    assert len(served.triton.requests) < 12


async def test_too_much_for_the_model_is_refused_in_words(serve: Any, request_of: Any) -> None:
    served = await serve(forward_headers=["x-user"])
    words = "forward_headers: expected at most 4096 bytes of headers, got 4138: x-user"
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await served.infer(request_of([[1]]), metadata=(("x-user", "u" * 4100),))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not served.triton.requests
    await served.infer(request_of([[1]]), metadata=(("x-other", "u" * 4100),))


async def test_they_count_for_what_may_wait(serve: Any, request_of: Any) -> None:
    bare = request_of([[1]]).ByteSize()
    served = await serve(forward_headers=["x-user"], limits={"queue_bytes": bare + 100, "drain_s": 1})
    await served.infer(request_of([[1]]), metadata=(("x-user", "u" * 62),))
    with pytest.raises(grpc.aio.AioRpcError, match=f"{bare + 101} bytes can never fit"):
        await served.infer(request_of([[1]]), metadata=(("x-user", "u" * 63),))
