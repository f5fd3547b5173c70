"""Who may do what: API keys, tenants, allowed classes and models, administration, and the audit log."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from pydantic import ValidationError
from tritonclient.grpc import service_pb2

from scheduler.app import Addresses
from scheduler.commands.serve import ready_line
from scheduler.config import Config
from scheduler.edge.access import Access
from scheduler.edge.audit import REFUSALS_PER_S, Audit
from scheduler.errors import RequestError, StartError


def hashed(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def bearer(key: str, **headers: str) -> tuple[tuple[str, str], ...]:
    others = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return (("authorization", f"Bearer {key}"), *others)


TENANTS = {
    "acme": {"api_keys": [hashed("one"), hashed("two")], "classes": ["background"], "models": ["iden*"]},
    "ops": {"api_keys": [hashed("root")], "admin": True},
    "free": {},
}


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """Code, message and ErrorInfo's reason."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = status_pb2.Status.FromString(dict(tuple(caught.value.trailing_metadata()))["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return caught.value.code(), caught.value.details(), info.reason


@pytest.mark.parametrize("key", ["one", "two"])
async def test_every_key_of_a_tenant_is_the_tenant(serve: Any, request_of: Any, key: str) -> None:
    served = await serve(tenants=TENANTS)
    await served.infer(request_of([[1]]), metadata=bearer(key))
    assert served.app.snapshot().ended["COMPLETED"] == 1


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("x-tenant-id", "free"),),
        bearer("wrong"),
        (("authorization", "Basic one"),),
        (("authorization", ""),),
        (("authorization", "Bearer " + "x" * 4000),),
    ],
)
async def test_without_a_known_key_nobody_is_served(serve: Any, request_of: Any, metadata: Any) -> None:
    served = await serve(tenants=TENANTS)
    code, _, reason = await refusal(served.infer(request_of([[1]]), metadata=metadata))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    for method, message in (
        ("ModelConfig", service_pb2.ModelConfigRequest(name="identity")),
        ("RepositoryIndex", service_pb2.RepositoryIndexRequest()),
        ("ModelStatistics", service_pb2.ModelStatisticsRequest()),
        ("LogSettings", service_pb2.LogSettingsRequest()),
    ):
        code, *_ = await refusal(getattr(served.stub, method)(message, metadata=metadata))
        assert code is grpc.StatusCode.UNAUTHENTICATED
    assert served.triton.requests == []
    assert (await served.stub.ServerLive(service_pb2.ServerLiveRequest())).live


@pytest.mark.parametrize(
    ("metadata", "model", "words"),
    [
        (bearer("one", x_tenant_id="ops"), "identity", "expected no other tenant's name"),
        (bearer("one"), "floats", "tenant acme may not use model 'floats'"),
        (bearer("one", x_priority="interactive"), "identity", "tenant acme may not use class interactive"),
    ],
)
async def test_tenant_may_not_do_what_its_settings_leave_out(
    serve: Any, request_of: Any, metadata: Any, model: str, words: str
) -> None:
    served = await serve(tenants=TENANTS)
    code, details, reason = await refusal(served.infer(request_of([[1]], model=model), metadata=metadata))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
    assert words in details


async def test_untagged_request_takes_the_first_class_that_the_tenant_may_use(
    serve: Any, request_of: Any, eventually: Any
) -> None:
    served = await serve(tenants=TENANTS)
    served.triton.hold()
    calls = [served.stub.ModelInfer(request_of([[n] * (n + 1)]), metadata=bearer("one")) for n in range(5)]
    await eventually(lambda: served.app.snapshot().queued > 0)
    assert [each.queued > 0 for each in served.app.snapshot().classes] == [False, True]
    served.triton.release()
    for call in calls:
        await call


async def test_index_and_metadata_show_only_the_allowed_models(serve: Any) -> None:
    served = await serve(tenants=TENANTS)
    index = await served.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), metadata=bearer("one"))
    assert {model.name for model in index.models} == {"identity"}
    code, *_ = await refusal(
        served.stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="floats"), metadata=bearer("one"))
    )
    assert code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("side", ["inputs", "outputs"])
async def test_memory_that_is_shared_is_for_an_admin_and_no_name_of_it_reaches_triton_otherwise(
    serve: Any, request_of: Any, tmp_path: Path, side: str
) -> None:
    tenants = {"acme": {"api_keys": [hashed("one")]}, "ops": {"api_keys": [hashed("root")], "admin": True}}
    path = tmp_path / "audit.jsonl"
    served = await serve(tenants=tenants, audit_log=path)
    request = request_of([[1]])
    request.outputs.add(name="OUTPUT")
    if side == "inputs":
        request.ClearField("raw_input_contents")
    getattr(request, side)[0].parameters["shared_memory_region"].string_param = "of somebody else"
    code, *_ = await refusal(served.infer(request, metadata=bearer("one")))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert served.triton.requests == []
    assert "shared memory: expected a tenant with `admin: true`, got acme" in path.read_text()
    with contextlib.suppress(grpc.aio.AioRpcError):  # the fake knows nothing of shared memory
        await served.infer(request, metadata=bearer("root"))
    assert len(served.triton.requests) == 1


async def test_an_unknown_name_is_told_with_the_allowed_models_alone(serve: Any, request_of: Any) -> None:
    tenants = {"acme": {"api_keys": [hashed("one")], "models": ["identity", "mine-*"]}}
    served = await serve(tenants=tenants)
    with pytest.raises(grpc.aio.AioRpcError, match=r"unknown model 'mine-1'; served are: identity\b(?!,)"):
        await served.infer(request_of([[1]], model="mine-1"), metadata=bearer("one"))


async def test_admin_action_needs_an_admin_and_is_in_the_audit_log(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    served = await serve(tenants=TENANTS, audit_log=path)
    load = service_pb2.RepositoryModelLoadRequest(model_name='evil"}\n{"event": "admin')
    code, *_ = await refusal(served.stub.RepositoryModelLoad(load, metadata=bearer("one")))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError):  # the fake has no repository to load from
        await served.stub.RepositoryModelLoad(load, metadata=bearer("root"))
    text = path.read_text()
    refused, admin = [json.loads(line) for line in text.splitlines()]
    assert (refused["event"], refused["tenant"], refused["outcome"].split(":")[0]) == (
        "refused",
        "acme",
        "PERMISSION_DENIED",
    )
    assert (admin["event"], admin["tenant"]) == ("admin", "ops")
    assert admin["what"] == f"RepositoryModelLoad {load.model_name}"
    assert admin["outcome"].startswith("UNIMPLEMENTED")
    assert "root" not in text
    assert "Bearer" not in text


@pytest.mark.parametrize(
    ("settings", "everybody"),
    [
        ({}, True),
        ({"listen": {"grpc": "localhost:1"}}, True),
        ({"listen": {"grpc": "[::1]:1"}, "tenants": {"acme": {"weight": 2}}}, True),
        ({"tenants": {"acme": {"api_keys": [hashed("one")]}}}, False),
        ({"tenants": {"acme": {"api_keys": [hashed("one")]}}, "allow_anonymous": True}, False),
        ({"listen": {"grpc": "0.0.0.0:1"}, "allow_anonymous": True}, False),
    ],
)
def test_everybody_administers_on_loopback_without_credentials_and_nowhere_else(
    settings: dict[str, Any], everybody: bool
) -> None:
    config = Config.model_validate(settings)
    access = Access(config)
    assert config.open_as_triton is everybody
    assert [access.rights(tenant).admin for tenant in ("default", "acme", "whoever")] == [everybody] * 3
    assert ready_line(Addresses("a:1", "b:2", "c:3"), config).endswith(
        "gRPC on a:1, HTTP on http://b:2, embedded Triton on c:3"
    )
    assert ("open to everybody on this machine" in ready_line(Addresses("a:1", "b:2", None), config)) is everybody


async def test_allowed_models_hold_for_everybody_who_administers(serve: Any, request_of: Any) -> None:
    served = await serve(tenants={"default": {"models": ["identity"]}})
    with pytest.raises(grpc.aio.AioRpcError, match="may not use model"):
        await served.infer(request_of([[1, 2, 3]], model="floats"))


async def test_credentials_that_come_with_a_reload_close_what_was_open(serve: Any) -> None:
    served = await serve()
    load = service_pb2.RepositoryModelLoadRequest(model_name="new")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.RepositoryModelLoad(load)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # it reached the fake, which has no repository
    settings = served.app._config.model_dump() | {"tenants": {"ops": {"api_keys": [hashed("root")], "admin": True}}}
    served.app.reload(lambda: Config.model_validate(settings))
    code, *_ = await refusal(served.stub.RepositoryModelLoad(load))
    assert code is grpc.StatusCode.UNAUTHENTICATED


def identify(settings: dict[str, Any], **headers: str) -> str:
    config = Config.model_validate({"tenants": TENANTS} | settings)
    return Access(config).identify({name.replace("_", "-"): value for name, value in headers.items()}, dict)


def test_anonymous_caller_may_go_only_under_a_name_without_credentials() -> None:
    assert identify({"allow_anonymous": True}) == "default"
    assert identify({"allow_anonymous": True}, x_tenant_id="free") == "free"
    for name in ("acme", "ops"):
        with pytest.raises(RequestError, match="expected its API key"):
            identify({"allow_anonymous": True}, x_tenant_id=name)


def test_certificate_names_are_tenants() -> None:
    tls = {"certificate": "c", "key": "k", "client_ca": "a"}
    tenants = {"acme": {"certificates": ["acme.example"]}, "ops": {"api_keys": [hashed("root")]}}
    access = Access(Config.model_validate({"listen": {"tls": tls}, "tenants": tenants}))
    shown = {"x509_common_name": [b"other"], "x509_subject_alternative_name": [b"acme.example", b"\xff"]}
    assert access.identify({}, lambda: shown) == "acme"
    assert access.identify({"authorization": "Bearer root"}, lambda: shown) == "ops"
    with pytest.raises(RequestError, match="expected an API key"):
        access.identify({}, lambda: {"x509_common_name": [b"stranger"]})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen": {"grpc": "0.0.0.0:9001"}}, "not a loopback address: expected tenants with api_keys"),
        ({"listen": {"grpc": "[::]:9001"}}, "not a loopback address"),
        ({"listen": {"grpc": "example.com:9001"}}, "not a loopback address"),
        (
            {"listen": {"grpc": "0.0.0.0:1"}, "allow_anonymous": True, "tenants": {"default": {"admin": True}}},
            "tenants.default.admin: expected api_keys or certificates",
        ),
        ({"tenants": {"a": {"api_keys": [hashed("k")]}, "b": {"api_keys": [hashed("k")]}}}, "of tenant a"),
        ({"tenants": {"a": {"certificates": ["x"]}}}, "expected listen.tls.client_ca"),
        ({"tenants": {"a": {"classes": ["gold"]}}}, "expected some of interactive, background, got gold"),
        ({"tenants": {"a": {"classes": []}}}, "got none"),
    ],
)
def test_settings_that_would_open_a_door_are_refused(settings: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(settings)
    assert words in str(caught.value)


def test_loopback_needs_no_authentication_and_others_an_explicit_word() -> None:
    for address in ("127.0.0.1:1", "localhost:1", "[::1]:1", "127.8.0.1:1"):
        Config.model_validate({"listen": {"grpc": address}})
    Config.model_validate({"listen": {"grpc": "0.0.0.0:1"}, "allow_anonymous": True})
    Config.model_validate({"listen": {"grpc": "0.0.0.0:1"}, "tenants": {"a": {"api_keys": [hashed("k")]}}})


def test_key_in_plain_text_is_refused_and_not_repeated(tmp_path: Path) -> None:
    from scheduler.config import load
    from scheduler.errors import StartError

    path = tmp_path / "fairlane.yaml"
    path.write_text("tenants: {a: {api_keys: [hunter2]}}")
    with pytest.raises(StartError, match="expected `sha256:`") as caught:
        load(path, {}, {})
    assert "hunter2" not in str(caught.value)


def test_refusals_in_the_audit_log_are_bounded_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    now = [7.0]
    audit = Audit(path, clock=lambda: now[0])
    for _ in range(REFUSALS_PER_S + 30):
        audit.refused("t", "p", "ModelInfer", "no\nno")
    now[0] = 8.0
    audit.refused("t", "p", "ModelInfer", "no")
    audit.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == REFUSALS_PER_S + 2
    assert lines[-2] == {"time": lines[-2]["time"], "event": "refused_left_out", "count": "30"}


def test_full_disk_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    audit = Audit(Path("/dev/full"))
    audit.reload("done")
    audit.close()
    assert "No space left" in capsys.readouterr().err


def test_file_that_cannot_be_opened_ends_the_start_in_words(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"audit_log: .*nowhere/audit.jsonl: cannot be written: No such file"):
        Audit(tmp_path / "nowhere" / "audit.jsonl")


def test_file_that_is_gone_with_its_folder_stops_nothing_and_is_opened_anew_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    audit = Audit(folder / "audit.jsonl")
    audit.reload("done")
    folder.rename(tmp_path / "elsewhere")
    audit.reload("lost")
    folder.mkdir()
    audit.reload("told")
    audit.close()
    assert json.loads((folder / "audit.jsonl").read_text())["outcome"] == "told"
    assert "No such file" in capsys.readouterr().err
