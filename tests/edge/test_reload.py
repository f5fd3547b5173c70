"""Settings that change while the service runs."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from scheduler.config import Config
from scheduler.errors import StartError
from scheduler.triton.fake import FakeModel, FakeTriton
from tests.edge.test_access import bearer, hashed


def changed(served: Any, **settings: Any) -> Any:
    """What reads the service's own settings with some of them replaced."""
    config = served.app._config
    return lambda: Config.model_validate(config.model_dump() | settings)


async def test_reload_changes_caps_at_once_and_drops_nothing(serve: Any, request_of: Any, eventually: Any) -> None:
    served = await serve(tenants={"default": {"max_in_flight": 1}}, models={"identity": {"merge": False}})
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n]]))) for n in range(4)]
    await eventually(lambda: served.app.snapshot().queued == 3)
    served.app.reload(changed(served, tenants={"default": {"max_in_flight": 2}}))
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    served.triton.release()
    await asyncio.gather(*calls)
    assert served.app.snapshot().ended["COMPLETED"] == 4


async def test_reload_rotates_keys(serve: Any, request_of: Any, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    served = await serve(tenants={"acme": {"api_keys": [hashed("old")]}}, audit_log=audit)
    await served.infer(request_of([[1]]), metadata=bearer("old"))
    served.app.reload(changed(served, tenants={"acme": {"api_keys": [hashed("new")]}}))
    await served.infer(request_of([[1]]), metadata=bearer("new"))
    with pytest.raises(grpc.aio.AioRpcError, match="known API key"):
        await served.infer(request_of([[1]]), metadata=bearer("old"))
    first, *_ = [json.loads(line) for line in audit.read_text().splitlines()]
    assert (first["event"], first["outcome"]) == ("reload", "done")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limits": {"drain_s": 9}}, "limits.drain_s: cannot change while the service runs"),
        ({"classes": [{"name": "gold"}]}, "classes: names and order cannot change"),
        (None, "not YAML"),
    ],
)
async def test_bad_reload_keeps_the_old_settings_and_says_why(
    serve: Any, request_of: Any, tmp_path: Path, settings: Any, words: str
) -> None:
    audit = tmp_path / "audit.jsonl"
    served = await serve(audit_log=audit)
    before = served.app._config

    def broken() -> Config:
        raise StartError("fairlane.yaml: not YAML")

    served.app.reload(broken if settings is None else changed(served, **settings))
    assert served.app._config is before
    await served.infer(request_of([[1]]))
    (record,) = [json.loads(line) for line in audit.read_text().splitlines()]
    assert record["outcome"].startswith("refused: ")
    assert words in record["outcome"]


async def test_cap_on_a_model_that_comes_with_a_reload_counts_what_is_there_already(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await serve(models={"two_instances": {"merge": False}})
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n]], model="two_instances"))) for n in range(8)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 3)
    cap = {"default": {"model_caps": {"two_instances": {"max_in_flight": 1}}}}
    served.app.reload(changed(served, tenants=cap))
    served.triton.release()
    await asyncio.gather(*calls)
    await eventually(lambda: not served.app.snapshot().tenants)
    # The three that were there before have been given back exactly: one may run now, and no more.
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([[n]], model="two_instances"))) for n in range(3)]
    await served.triton.until(lambda triton: len(triton.in_flight) > 0)
    await eventually(lambda: served.app.snapshot().queued + served.app.snapshot().in_flight == 3)
    assert served.app.snapshot().in_flight == 1
    served.triton.release()
    await asyncio.gather(*calls)


async def test_core_refuses_other_classes(serve: Any) -> None:
    served = await serve()
    settings = Config.model_validate({"classes": [{"name": "other"}]}).core_settings()
    with pytest.raises(ValueError, match="expected interactive, background as before, got other"):
        served.app._driver.reconfigure(settings)


def backends_of(*tritons: Any) -> list[dict[str, str]]:
    return [{"name": name, "grpc": address} for name, address in tritons]


async def test_reload_adds_a_backend_and_lets_one_go_while_it_works(
    serve: Any, request_of: Any, rows_of: Any, eventually: Any
) -> None:
    served = await serve()
    (old,) = served.app._config.backends
    served.triton.hold()
    calls = [asyncio.ensure_future(served.infer(request_of([n, n], model="unbatched"))) for n in range(6)]
    await served.triton.until(lambda triton: len(triton.in_flight) == 2)
    other = FakeTriton((FakeModel("unbatched", max_batch_size=0, dims=(2,)),))
    try:
        served.app.reload(changed(served, backends=backends_of(("new", await other.start()))))
        # What waited goes to the new one, what is in flight stays where it is.
        await eventually(lambda: sum(call.done() for call in calls) == 4)
        assert len(other.requests) == 4
        await eventually(lambda: any(each.leaving for each in served.app.snapshot().backends))
        leaving = next(each for each in served.app.snapshot().backends if each.name == old.name)
        assert (leaving.ready, sum(leaving.in_flight.values())) == (False, 2)
        served.triton.release()
        assert [rows_of(answer) for answer in await asyncio.gather(*calls)] == [[n, n] for n in range(6)]
        # The new one does not serve all that the old one did: what is missed is waited for until the outage is over.
        served.app.reload(changed(served, limits=served.app._config.limits.model_dump() | {"outage_s": 0.1}))
        await eventually(lambda: [each.name for each in served.app.snapshot().backends] == ["new"])
    finally:
        await other.stop()


async def test_reload_to_an_address_where_nobody_is_lets_requests_wait(
    serve: Any, request_of: Any, rows_of: Any
) -> None:
    served = await serve()
    address = served.app._config.backends[0].grpc
    served.app.reload(changed(served, backends=backends_of(("gone", "127.0.0.1:1"))))
    await served.app._membership._applying
    waiting = asyncio.ensure_future(served.infer(request_of([[7]])))
    served.app.reload(changed(served, backends=backends_of(("back", address))))
    assert rows_of(await waiting) == [[7]]
    assert served.app.snapshot().ended["NO_BACKEND"] == 0


@pytest.mark.parametrize(
    ("backends", "words"),
    [
        ([], "backends: an embedded Triton cannot be taken up or given up"),
        ([{"name": "a", "grpc": "127.0.0.1:1", "tls": {"ca": "/absent.pem"}}], "backends.a.tls: .*absent.pem"),
    ],
)
async def test_backends_that_cannot_be_used_change_nothing(
    serve: Any, request_of: Any, caplog: pytest.LogCaptureFixture, backends: Any, words: str
) -> None:
    served = await serve()
    served.app.reload(changed(served, backends=backends))
    assert re.search(words, caplog.text)
    await served.infer(request_of([[1]]))
