"""A backend that was ready and is not any more: requests wait for it."""

import asyncio
from typing import Any

import grpc
import pytest

from scheduler.triton import catalog, pool
from scheduler.triton.fake import FakeModel, FakeTriton


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


class Hole:
    """A way to a server, whose connections can be made to carry nothing any more; new ones do."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._open: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sinks: list[asyncio.StreamWriter] = []

    async def start(self) -> str:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def swallow(self) -> None:
        """Carry nothing on the connections that there are, and do not say so."""
        for each in self._open:
            each.clear()

    async def stop(self) -> None:
        self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(sink.wait_closed() for sink in self._sinks), return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._host, self._port)
        carries = asyncio.Event()
        carries.set()
        self._open.append(carries)
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._carry(source, sink, carries))
            self._tasks.add(task)
            self._sinks.append(sink)

    @staticmethod
    async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, carries: asyncio.Event) -> None:
        try:
            while data := await source.read(65536):
                await carries.wait()
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()


async def test_connection_that_carries_nothing_any_more_is_left_for_a_new_one_and_nobody_loses_an_answer(
    serve: Any, eventually: Any, request_of: Any, rows_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "RENEW_S", 0.3)
    monkeypatch.setattr(pool, "LIVE_TIMEOUT_S", 0.1)
    triton = FakeTriton([FakeModel("identity")])
    hole = Hole(await triton.start())
    served = await serve(backends=[{"name": "behind", "grpc": await hole.start()}])
    assert rows_of(await served.infer(request_of([[1]]))) == [[1]]
    hole.swallow()
    call = asyncio.ensure_future(served.infer(request_of([[2]])))
    await eventually(lambda: not served.app.ready)
    late = asyncio.ensure_future(served.infer(request_of([[3]])))
    assert rows_of(await call) == [[2]]
    assert rows_of(await late) == [[3]]
    await hole.stop()
    await triton.stop()


async def test_server_that_stands_still_keeps_its_connection_and_what_is_in_flight_on_it(
    serve: Any, eventually: Any, request_of: Any, rows_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "RENEW_S", 0.0)
    monkeypatch.setattr(pool, "LIVE_TIMEOUT_S", 0.1)
    served = await serve()
    served.triton.hold()
    call = asyncio.ensure_future(served.infer(request_of([[1]])))
    await served.triton.until(lambda triton: len(triton.in_flight) == 1)
    served.triton.stand_still()
    await eventually(lambda: not served.app.ready)
    served.triton.go_on()
    await eventually(lambda: served.app.ready)
    served.triton.release()
    assert rows_of(await call) == [[1]]
    assert len(served.triton.requests) == 1
