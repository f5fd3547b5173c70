"""Models that a backend could not load: their own error, and what `/readyz` says of them."""

from typing import Any

import aiohttp
import grpc
import pytest

from scheduler.triton.unserved import LOADING, Unserved
from tests.edge.test_access import bearer, hashed

BROKEN = {"broken": Unserved("no licence file"), "slow": LOADING}
OPERATOR = {"tenants": {"ops": {"api_keys": [hashed("root")], "monitor": True}, "acme": {"api_keys": [hashed("one")]}}}


async def served_with(serve: Any, missing: dict[str, Unserved], **settings: Any) -> Any:
    served = await serve(**settings)
    served.app._catalog.loaded_by("fake", lambda served: missing)
    await served.app._catalog.refresh()
    return served


async def readyz(served: Any, **headers: str) -> list[str]:
    url = f"http://{served.addresses.http}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as reply:
        assert reply.status == 200
        return (await reply.text()).splitlines()


@pytest.mark.parametrize(
    ("model", "words", "pushback_ms"),
    [("broken", "model broken is not loaded: no licence file", "-1"), ("slow", "still being loaded", "2000")],
)
async def test_a_model_that_is_not_loaded_has_an_error_of_its_own(
    serve: Any, request_of: Any, model: str, words: str, pushback_ms: str
) -> None:
    served = await served_with(serve, BROKEN)
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await served.infer(request_of([[1]], model=model))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(tuple(caught.value.trailing_metadata()))
    assert (trailers["fairlane-reason"], trailers["grpc-retry-pushback-ms"]) == ("MODEL_NOT_LOADED", pushback_ms)


async def test_what_waits_for_a_model_that_a_restart_could_not_load_is_told_why(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await serve()
    backend = served.triton.models.pop("identity")
    served.app._catalog.lost("fake")
    waiting = served.stub.ModelInfer(request_of([[1]]), timeout=60)
    await eventually(lambda: served.app.snapshot().queued == 1)
    served.app._catalog.loaded_by("fake", lambda served: {"identity": Unserved("no licence file")})
    await served.app._catalog.refresh()
    with pytest.raises(grpc.aio.AioRpcError, match="model identity is not loaded: no licence file"):
        await waiting
    served.triton.models["identity"] = backend
    await served.app._catalog.refresh()
    await served.infer(request_of([[1]]))
    assert served.app.unserved() == {}


async def test_readyz_names_them_to_whoever_may_see_all_tenants_and_counts_them_to_others(serve: Any) -> None:
    served = await served_with(serve, BROKEN)
    assert await readyz(served) == [
        "ready",
        "model broken is not served: no licence file",
        "model slow is not served: it is still being loaded",
    ]
    served = await served_with(serve, BROKEN, **OPERATOR)
    strangers = ["ready", "models that are not served: 2"]
    assert await readyz(served) == strangers
    assert await readyz(served, Authorization=bearer("one")[0][1]) == strangers
    assert len(await readyz(served, Authorization=bearer("root")[0][1])) == 3


async def test_readyz_keeps_its_answer_short(serve: Any) -> None:
    served = await served_with(serve, {f"m{number:02}": Unserved("x" * 1000) for number in range(30)})
    lines = await readyz(served)
    assert (len(lines), lines[-1]) == (22, "and 10 more")
    assert len(lines[1]) < 350


async def test_the_live_page_tells_of_them(serve: Any) -> None:
    served = await served_with(serve, BROKEN)
    live = served.app._observatory.live
    live.sample()
    assert [each["name"] for each in live.state()["unserved"]] == ["broken", "slow"]
    assert "model broken is not served: no licence file" in [each["text"] for each in live.state()["happenings"]]
    served.app._catalog.loaded_by("fake", lambda served: {})
    live.sample()
    assert live.state()["unserved"] == []
    assert "model broken is no longer missing" in [each["text"] for each in live.state()["happenings"]]
