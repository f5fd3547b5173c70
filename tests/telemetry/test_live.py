"""What /events, /debug/snapshot and /debug/requests say of a whole service."""

import asyncio
import json
from typing import Any

import aiohttp
import grpc
import pytest

from scheduler.telemetry.live import SCHEMA
from tests.edge.test_reload import changed


async def read_states(served: Any, query: str, number: int) -> tuple[list[Any], list[Any]]:
    """The history and the first `number` states of /events."""
    history: list[Any] = []
    states: list[Any] = []
    async with (
        aiohttp.ClientSession(f"http://{served.addresses.http}") as session,
        session.get(f"/events{query}") as reply,
    ):
        assert reply.content_type == "text/event-stream"
        event = ""
        async for line in reply.content:
            text = line.decode().rstrip("\n")
            if text.startswith("event: "):
                event = text.removeprefix("event: ")
            elif text.startswith("data: "):
                (history if event == "history" else states).append(json.loads(text.removeprefix("data: ")))
            if len(states) == number:
                return history, states
    raise AssertionError("the stream ended early")


async def test_snapshot_tells_its_version(serve: Any, get: Any) -> None:
    served = await serve()
    status, state = await get(served, "/debug/snapshot")
    assert (status, state["schema"]) == (200, SCHEMA)
    assert state["queued"] == 0


async def test_a_flood_is_seen_with_its_class_tenant_and_refusals(serve: Any, request_of: Any, eventually: Any) -> None:
    served = await serve(tenants={"loud": {"max_queued": 5, "weight": 2}}, models={"identity": {"merge": False}})
    served.triton.hold()
    flood = (("x-tenant-id", "loud"), ("x-priority", "background"))
    calls = [asyncio.ensure_future(served.infer(request_of([[n]]), metadata=flood)) for n in range(2)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    calls += [asyncio.ensure_future(served.infer(request_of([[n]]), metadata=flood)) for n in range(18)]
    await eventually(lambda: served.app.snapshot().ended["TENANT_QUEUE_FULL"] == 13)
    history, states = await read_states(served, "", 2)
    state = states[-1]
    background = next(each for each in state["classes"] if each["name"] == "background")
    assert (background["queued"], background["by_model"], background["in_flight"]) == (5, {"identity": 5}, 2)
    assert background["queue_bytes"] == state["queue_bytes"] > 0
    (loud,) = state["tenants"]["rows"]
    assert (loud["name"], loud["weight"], loud["queued"], loud["in_flight"]) == ("loud", 2, 5, 2)
    assert loud["refused_per_s"] > 0
    assert any("background is being refused" in each["text"] for each in state["happenings"])
    assert isinstance(history[0], list)
    served.triton.release()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_tenant_that_only_waits_is_shown(serve: Any, request_of: Any) -> None:
    served = await serve(models={"identity": {"merge": False}})
    served.triton.hold()
    call = asyncio.ensure_future(served.infer(request_of([[1]]), metadata=(("x-tenant-id", "patient"),)))
    await served.triton.until(lambda triton: len(triton.in_flight) == 1)
    _, states = await read_states(served, "", 2)
    assert [(each["name"], each["in_flight"]) for each in states[-1]["tenants"]["rows"]] == [("patient", 1)]
    served.triton.release()
    await call


async def test_tenants_are_filtered_and_bounded_whatever_their_number(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await serve()
    for number in range(30):
        await served.infer(request_of([[1]]), metadata=(("x-tenant-id", f"Tenant-{number}"),))
    _, states = await read_states(served, "?match=tenant-2&top=4", 1)
    tenants = states[0]["tenants"]
    assert (tenants["known"], tenants["matching"], len(tenants["rows"])) == (30, 11, 4)


async def test_service_stops_while_somebody_listens(serve: Any) -> None:
    served = await serve()
    listening = asyncio.ensure_future(read_states(served, "", 1000))
    await asyncio.sleep(0)
    await read_states(served, "", 1)
    assert await served.app.stop()
    with pytest.raises((AssertionError, aiohttp.ClientError)):
        await listening


async def test_request_is_explained_by_its_id(serve: Any, request_of: Any, get: Any) -> None:
    served = await serve()
    await served.infer(request_of([[1], [2]], id="why/me"), metadata=(("x-tenant-id", "acme"),))
    status, answer = await get(served, "/debug/requests/why/me")
    assert status == 200
    assert (answer["tenant"], answer["rows"], answer["outcome"]) == ("acme", 2, "completed")
    assert answer["timeline"][0]["what"] == "arrived"
    status, newest = await get(served, "/debug/requests?newest=1")
    assert [each["id"] for each in newest["requests"]] == ["why/me"]


async def test_listeners_are_bounded(serve: Any, monkeypatch: pytest.MonkeyPatch, get: Any) -> None:
    monkeypatch.setattr("scheduler.edge.http.MAX_LISTENERS", 1)
    served = await serve()
    async with (
        aiohttp.ClientSession(f"http://{served.addresses.http}") as session,
        session.get("/events") as first,
    ):
        assert first.status == 200
        assert (await get(served, "/events"))[0] == 503


async def test_request_that_is_not_in_the_ring_is_named(serve: Any, get: Any) -> None:
    served = await serve()
    status, answer = await get(served, "/debug/requests/gone")
    assert status == 404
    assert "no request 'gone' among the last 0" in answer["error"]


async def test_number_that_is_none_is_refused_in_words(serve: Any, get: Any) -> None:
    served = await serve()
    assert await get(served, "/debug/requests?newest=many") == (400, "newest: expected a number, got 'many'\n")


async def test_page_may_load_nothing_from_elsewhere(serve: Any) -> None:
    served = await serve()
    async with aiohttp.ClientSession(f"http://{served.addresses.http}") as session:
        for path in ("/", "/page.css", "/page.js"):
            async with session.get(path) as reply:
                assert reply.status == 200
                assert reply.headers["Content-Security-Policy"].startswith("default-src 'self'")


async def test_open_breaker_is_told_with_what_opened_it(serve: Any, request_of: Any, get: Any) -> None:
    served = await serve()
    served.triton.failures = [(grpc.StatusCode.UNAVAILABLE, "reloading")] * 20
    for _ in range(10):
        with pytest.raises(grpc.aio.AioRpcError):
            await served.infer(request_of([[1]]), timeout_s=0.3)
    _, states = await read_states(served, "", 2)
    (breaker,) = states[-1]["backends"][0]["breakers"].items()
    assert breaker[0] == "identity"
    assert breaker[1]["state"] in {"open", "half_open"}
    assert any("breaker of identity on fake opened" in each["text"] for each in states[-1]["happenings"])
    _, text = await get(served, "/metrics")
    assert 'fairlane_breaker_state{backend="fake",model="identity"' in text


async def test_reload_reaches_the_live_page_and_the_metrics(serve: Any, get: Any) -> None:
    served = await serve(classes=[{"name": "gold", "weight": 2, "max_queued": 10}])
    served.app.reload(
        changed(served, classes=[{"name": "gold", "weight": 7, "max_queued": 99}], tenants={"acme": {"weight": 3}})
    )
    assert 'fairlane_queue_limit{class="gold"} 99.0' in (await get(served, "/metrics"))[1]
    (gold,) = served.app._observatory.live.state()["classes"]
    assert (gold["weight"], gold["max_queued"]) == (7, 99)


async def test_limit_that_moved_is_told_with_why(
    serve: Any, request_of: Any, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.core.backends.concurrency.QUIET_S", 1e-9)
    served = await serve()
    _, before = await read_states(served, "", 2)
    assert before[-1]["backends"][0]["concurrency"] | {"lesser": 0} == {
        "limit": 1.0,
        "lesser": 0,
        "ratio": 1.0,
        "gradient": 1.0,
        "why": "nothing is known yet",
        "moved_at": 0.0,
        "moved_ago_s": None,
    }
    for number in range(2):
        await served.infer(request_of([[number]]), metadata=(("x-priority", "interactive"),))
    _, after = await read_states(served, "", 2)
    (backend,) = after[-1]["backends"]
    places = backend["concurrency"]["limit"]
    assert places > 2
    assert backend["models"] == 6
    assert backend["concurrency"]["why"] == "quiet"
    assert backend["concurrency"]["moved_ago_s"] >= 0
    assert after[-1]["point"]["limits"] == {"fake": places}
    _, text = await get(served, "/metrics")
    assert f'fairlane_lesser_batches_limit{{backend="fake"}} {places}' in text
    assert 'fairlane_lesser_batches_limit_gradient{backend="fake"} 1.0' in text
    assert 'fairlane_slowdown_ratio{backend="fake"} 1.0' in text
