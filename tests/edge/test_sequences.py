"""Stateful sequences through the whole service, in front of two fake backends that tell what they were sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from scheduler.triton.fake import FakeModel, FakeTriton


@pytest.fixture
async def fakes() -> AsyncIterator[list[FakeTriton]]:
    fakes = [FakeTriton([FakeModel("total", stateful=True)]) for _ in range(2)]
    yield fakes
    for fake in fakes:
        fake.release()
        await fake.stop()


@pytest.fixture
async def served(serve: Any, fakes: list[FakeTriton]) -> Any:
    backends = [{"name": f"b{n}", "grpc": await fake.start()} for n, fake in enumerate(fakes)]
    return await serve(backends=backends)


@pytest.fixture
def step_of(request_of: Callable[..., Any]) -> Callable[..., Any]:
    def build(value: int, sequence: int | str = 7, **flags: bool) -> Any:
        request = request_of([[value]], "total")
        kind = "string_param" if isinstance(sequence, str) else "int64_param"
        setattr(request.parameters["sequence_id"], kind, sequence)
        for name, flag in flags.items():
            request.parameters[f"sequence_{name}"].bool_param = flag
        return request

    return build


@pytest.fixture
async def home(served: Any, fakes: list[FakeTriton], step_of: Any) -> FakeTriton:
    """The backend of a sequence 7 that has begun with a 1; it holds what comes after."""
    await served.infer(step_of(1, start=True))
    fake = next(fake for fake in fakes if fake.requests)
    fake.hold()
    return fake


def values(fake: FakeTriton) -> list[int]:
    return [int.from_bytes(request.raw_input_contents[0], "little") for request in fake.requests]


def ids(fake: FakeTriton) -> list[int]:
    return [request.parameters["sequence_id"].int64_param for request in fake.requests]


async def test_steps_arrive_at_one_backend_one_after_the_other(
    served: Any, fakes: list[FakeTriton], home: FakeTriton, step_of: Any, eventually: Any
) -> None:
    calls = []
    for n in (2, 3, 4):
        calls.append(asyncio.ensure_future(served.infer(step_of(n, end=n == 4))))
        await eventually(lambda n=n: len(home.in_flight) == 1 and served.app.snapshot().queued == n - 2)
    assert values(home) == [1, 2]
    home.release()
    await asyncio.gather(*calls)
    assert values(home) == [1, 2, 3, 4]
    assert sum(len(fake.requests) for fake in fakes) == 4


async def test_one_id_of_two_tenants_does_not_meet_at_the_backends(
    served: Any, fakes: list[FakeTriton], step_of: Any
) -> None:
    for tenant, start in (("a", True), ("b", True), ("a", False)):
        await served.infer(step_of(1, start=start), metadata=(("x-tenant-id", tenant),))
    of_b, of_a = sorted((ids(fake) for fake in fakes), key=len)
    assert (len(of_b), len(of_a)) == (1, 2)
    assert of_a[0] == of_a[1]
    assert len({*of_a, *of_b, 7}) == 3


async def test_a_string_id_stays_a_string(served: Any, fakes: list[FakeTriton], step_of: Any) -> None:
    await served.infer(step_of(1, "seven", start=True))
    (request,) = [request for fake in fakes for request in fake.requests]
    assert request.parameters["sequence_id"].string_param.isdigit()


async def test_a_step_without_a_sequence_is_lost_for_good(served: Any, step_of: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="begin anew with sequence_start") as caught:
        await served.infer(step_of(1))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(tuple(caught.value.trailing_metadata()))
    assert (trailers["fairlane-reason"], trailers["grpc-retry-pushback-ms"]) == ("SEQUENCE_LOST", "-1")


async def test_a_cancelled_step_takes_those_behind_it_along(
    served: Any, home: FakeTriton, step_of: Any, eventually: Any
) -> None:
    calls = []
    for n in (2, 3, 4):
        calls.append(asyncio.ensure_future(served.infer(step_of(n))))
        await eventually(lambda n=n: len(home.in_flight) == 1 and served.app.snapshot().queued == n - 2)
    calls[1].cancel()
    with pytest.raises(grpc.aio.AioRpcError, match="the sequence is lost"):
        await calls[2]
    home.release()
    await calls[0]
    assert values(home) == [1, 2]


@pytest.mark.parametrize(("name", "kind", "value"), [("id", "bool_param", True), ("start", "int64_param", 1)])
async def test_parameters_of_another_type_are_named(
    served: Any, step_of: Any, name: str, kind: str, value: Any
) -> None:
    request = step_of(1, start=True)
    setattr(request.parameters[f"sequence_{name}"], kind, value)
    with pytest.raises(grpc.aio.AioRpcError, match=f"parameter 'sequence_{name}': expected") as caught:
        await served.infer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("id_", ["x" * 129, "\u00e9" * 65])
async def test_a_string_id_is_at_most_as_long_as_triton_takes(served: Any, step_of: Any, id_: str) -> None:
    await served.infer(step_of(1, "x" * 128, start=True))
    with pytest.raises(
        grpc.aio.AioRpcError, match="parameter 'sequence_id': expected at most 128 bytes, got 1"
    ) as caught:
        await served.infer(step_of(1, id_, start=True))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
