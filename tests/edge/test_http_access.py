"""Who may look at the HTTP side: health is for all; the rest tells of all tenants, and is for `monitor` and `admin`."""

import base64
import json
import socket
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from tests.edge.test_access import hashed
from tests.edge.test_reload import changed

GUARDED = ("/", "/page.js", "/metrics", "/events", "/debug/snapshot", "/debug/requests", "/debug/requests/x", "/none")
TENANTS = {
    "watch": {"api_keys": [hashed("one")], "monitor": True, "models": []},
    "ops": {"api_keys": [hashed("root")], "admin": True},
    "acme": {"api_keys": [hashed("acme")]},
}


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


async def ask(served: Any, path: str, authorization: str | None = None) -> tuple[int, Any, str]:
    """Status, headers, and the beginning of the body."""
    headers = {} if authorization is None else {"Authorization": authorization}
    async with (
        aiohttp.ClientSession(f"http://{served.addresses.http}", headers=headers) as session,
        session.get(path) as reply,
    ):
        return reply.status, reply.headers, (await reply.content.readany()).decode()


@pytest.mark.parametrize("path", GUARDED)
async def test_without_a_key_nothing_is_told(serve: Any, path: str) -> None:
    served = await serve(tenants=TENANTS)
    status, headers, body = await ask(served, path)
    assert (status, headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
    assert body == "expected an API key (authorization: Bearer KEY) or a known client certificate\n"


@pytest.mark.parametrize(
    "authorization", ["Bearer two", "Bearer", "one", basic("two"), "Basic one", "Basic ", "Digest one", ""]
)
async def test_wrong_credentials_are_none(serve: Any, authorization: str) -> None:
    served = await serve(tenants=TENANTS)
    assert (await ask(served, "/metrics", authorization))[0] == 401


@pytest.mark.parametrize("authorization", ["Bearer one", "bearer one", basic("one"), "Bearer root"])
async def test_the_key_of_a_monitor_or_an_admin_opens_all_of_it(serve: Any, authorization: str) -> None:
    served = await serve(tenants=TENANTS)
    for path in GUARDED[:6]:
        assert (await ask(served, path, authorization))[0] == 200
    assert (await ask(served, "/none", authorization))[0] == 404


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_told_to_all(serve: Any, path: str) -> None:
    served = await serve(tenants=TENANTS)
    assert (await ask(served, path))[0] == 200


async def test_without_credentials_in_any_tenant_all_of_it_is_open(serve: Any) -> None:
    served = await serve()
    assert (await ask(served, "/metrics"))[0] == 200


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("authorization", ["Bearer acme", basic("acme")])
async def test_a_tenant_that_is_no_monitor_sees_nothing_of_the_others(
    serve: Any, path: str, authorization: str
) -> None:
    served = await serve(tenants=TENANTS)
    status, headers, body = await ask(served, path, authorization)
    assert (status, "WWW-Authenticate" in headers) == (403, False)
    assert body == f"GET {path}: expected a tenant with `monitor: true` or `admin: true`, got acme\n"


async def test_a_monitor_that_may_use_no_model_infers_nothing(serve: Any, request_of: Any) -> None:
    served = await serve(tenants=TENANTS)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.infer(request_of([[1]]), metadata=[("authorization", "Bearer one")])
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_anonymous_callers_that_gRPC_serves_see_nothing_of_the_others(serve: Any) -> None:  # noqa: N802
    served = await serve(tenants=TENANTS, allow_anonymous=True)
    assert (await ask(served, "/metrics"))[0] == 401
    assert (await ask(served, "/metrics", "Bearer two"))[0] == 401
    assert (await ask(served, "/metrics", "Bearer one"))[0] == 200


async def test_anonymous_callers_may_look_where_the_default_tenant_is_a_monitor(serve: Any) -> None:
    served = await serve(tenants=TENANTS | {"default": {"monitor": True}}, allow_anonymous=True)
    assert (await ask(served, "/metrics"))[0] == 200


async def test_a_reload_rotates_keys(serve: Any) -> None:
    served = await serve(tenants=TENANTS)
    served.app.reload(changed(served, tenants={"watch": {"api_keys": [hashed("new")], "monitor": True}}))
    assert (await ask(served, "/metrics", "Bearer one"))[0] == 401
    assert (await ask(served, "/metrics", "Bearer new"))[0] == 200


async def test_refused_access_stands_in_the_audit_log_without_the_key(serve: Any, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    served = await serve(tenants=TENANTS, audit_log=audit)
    await ask(served, "/debug/snapshot", "Bearer secret")
    (line,) = audit.read_text().splitlines()
    record = json.loads(line)
    assert (record["event"], record["what"], record["peer"]) == ("refused", "GET /debug/snapshot", "127.0.0.1")
    assert "secret" not in line


async def test_a_tenant_that_is_no_monitor_stands_in_the_audit_log_by_name(serve: Any, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    served = await serve(tenants=TENANTS, audit_log=audit)
    await ask(served, "/metrics", "Bearer acme")
    record = json.loads(audit.read_text())
    assert (record["event"], record["tenant"], record["what"]) == ("refused", "acme", "GET /metrics")
    assert record["outcome"].startswith("PERMISSION_DENIED: GET /metrics: expected a tenant with `monitor: true`")


async def test_both_sides_listen_on_ipv6(serve: Any, request_of: Any) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    served = await serve(listen={"grpc": "[::1]:0", "http": "[::1]:0"})
    await served.infer(request_of([[1]]))
    assert (await ask(served, "/readyz"))[0] == 200
