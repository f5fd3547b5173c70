"""Messages of any size, by the SDK: what goes through, and what the server's limits say of the others."""

from typing import Any

import fairlane
import grpc
import numpy as np
import pytest

from scheduler.triton.fake import FakeModel

MIB = 2**20


def column(size_bytes: int) -> Any:
    """One row of INT64 numbers."""
    return np.ones((1, size_bytes // 8), np.int64)


async def test_the_servers_limit_is_the_only_one(serve: Any) -> None:
    served = await serve(limits={"message_bytes": 256 * MIB, "drain_s": 1})
    async with fairlane.aio.Client(served.addresses.grpc) as client:
        result = await client.infer("identity", {"INPUT": column(80 * MIB)})
        assert result["OUTPUT"].nbytes == 80 * MIB
        # More than the default of a tenant's queue: the two bounds go with the message's.
        result = await client.infer("identity", {"INPUT": column(129 * MIB)})
        assert result["OUTPUT"].nbytes == 129 * MIB


async def test_request_over_the_servers_limit_names_it(serve: Any) -> None:
    served = await serve(limits={"message_bytes": MIB, "drain_s": 1})
    words = r"request: expected at most 1048576 bytes \(limits.message_bytes of the server\); got 20971"
    async with fairlane.aio.Client(served.addresses.grpc) as client:
        with pytest.raises(fairlane.MessageTooLarge, match=words) as caught:
            await client.infer("identity", {"INPUT": column(2 * MIB)})
        assert (caught.value.limit_bytes, caught.value.attempts) == (MIB, 1)
        # The connection goes on.
        assert (await client.infer("identity", {"INPUT": column(8)}))["OUTPUT"].tolist() == [[1]]


async def test_answer_over_the_servers_limit_names_it(serve: Any) -> None:
    served = await serve(limits={"message_bytes": MIB, "drain_s": 1})
    served.triton.models["identity"] = FakeModel(
        "identity", compute=lambda tensors: {"OUTPUT": np.repeat(tensors["INPUT"], 3, axis=1)}
    )
    words = r"answer: expected at most 1048576 bytes \(limits.message_bytes of the server\); got 15729"
    async with fairlane.aio.Client(served.addresses.grpc) as client:
        with pytest.raises(fairlane.MessageTooLarge, match=words) as caught:
            await client.infer("identity", {"INPUT": column(MIB // 2)})
    assert caught.value.attempts == 1


async def test_bound_of_the_queue_that_is_set_holds_and_is_named(serve: Any) -> None:
    served = await serve(limits={"queue_bytes": MIB, "drain_s": 1})
    async with fairlane.aio.Client(served.addresses.grpc) as client:
        with pytest.raises(fairlane.InvalidRequest, match="can never fit into the 1048576") as caught:
            await client.infer("identity", {"INPUT": column(2 * MIB)})
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT.name
    assert caught.value.reason == "TOO_LARGE"
