"""TLS and mutual TLS at the edge, certificates that change, and TLS and secrets towards the backends."""

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from scheduler.app import App
from scheduler.config import Config
from scheduler.errors import StartError
from scheduler.triton.fake import FakeModel, FakeTriton
from tests.edge.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def listen(server: Pair, client_ca: Path | None = None) -> dict[str, Any]:
    tls = {"certificate": server.certificate, "key": server.key, "client_ca": client_ca}
    return {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "tls": tls}


async def infer(address: str, authority: Authority, request: Any, client: Pair | None = None) -> Any:
    credentials = grpc.ssl_channel_credentials(
        authority.pair.certificate.read_bytes(),
        client.key.read_bytes() if client else None,
        client.certificate.read_bytes() if client else None,
    )
    async with grpc.aio.secure_channel(address, credentials) as channel:
        return await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)


async def test_tls_serves_and_plain_text_is_turned_away(serve: Any, request_of: Any, authority: Authority) -> None:
    served = await serve(listen=listen(authority.sign("server", "plain")))
    await infer(served.addresses.grpc, authority, request_of([[1]]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.infer(request_of([[1]]), timeout_s=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_client_certificate_names_the_tenant(serve: Any, request_of: Any, authority: Authority) -> None:
    server, acme, stranger = (authority.sign(name, f"mutual-{name}") for name in ("server", "acme.example", "nobody"))
    served = await serve(
        listen=listen(server, authority.pair.certificate), tenants={"acme": {"certificates": ["acme.example"]}}
    )
    address = served.addresses.grpc
    await infer(address, authority, request_of([[1]]), acme)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(address, authority, request_of([[1]]), stranger)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(address, authority, request_of([[1]]))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    others = Authority(acme.certificate.parent, "other-authority").sign("acme.example", "forged")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer(address, authority, request_of([[1]]), others)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def put(pair: Pair, folder: Path) -> Pair:
    """A copy of it, where it can be replaced."""
    copy = Pair(folder / "server.pem", folder / "server.key")
    shutil.copy(pair.certificate, copy.certificate)
    shutil.copy(pair.key, copy.key)
    return copy


def presented(address: str) -> str:
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)))


async def test_changed_certificate_is_used_without_a_restart_and_a_broken_one_is_not(
    serve: Any, request_of: Any, authority: Authority, tmp_path: Path
) -> None:
    first, second = authority.sign("server", "first"), authority.sign("server", "second")
    pair = put(first, tmp_path)
    served = await serve(listen=listen(pair))
    address = served.addresses.grpc
    assert await asyncio.to_thread(presented, address) == first.certificate.read_text()
    # The certificate is there, its key not yet: the old pair stays.
    shutil.copy(second.certificate, pair.certificate)
    assert await asyncio.to_thread(presented, address) == first.certificate.read_text()
    shutil.copy(second.key, pair.key)
    assert await asyncio.to_thread(presented, address) == second.certificate.read_text()
    pair.certificate.unlink()
    await infer(address, authority, request_of([[1]]))


async def test_broken_certificate_is_told_of_once_and_not_at_every_handshake(
    serve: Any, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = authority.sign("server", "told-first"), authority.sign("server", "told-second")
    pair = put(first, tmp_path)
    served = await serve(listen=listen(pair))
    for broken, mended in ((second, first), (second, second)):
        shutil.copy(broken.certificate, pair.certificate)
        for _ in range(5):
            await asyncio.to_thread(presented, served.addresses.grpc)
        shutil.copy(mended.certificate, pair.certificate)
        shutil.copy(mended.key, pair.key)
        await asyncio.to_thread(presented, served.addresses.grpc)
    assert [record.levelname for record in caplog.records if "not used yet" in record.message] == ["WARNING"] * 2


async def test_key_of_another_certificate_ends_the_start_in_words(authority: Authority) -> None:
    one, other = authority.sign("server", "one"), authority.sign("server", "other")
    config = Config.model_validate({"listen": listen(Pair(one.certificate, other.key)), "backends": [BACKEND]})
    with pytest.raises(StartError, match=r"listen\.tls: .*one\.pem"):
        await App(config).start()


BACKEND = {"name": "b", "grpc": "127.0.0.1:1"}


class GuardedTriton(FakeTriton):
    """A fake behind mutual TLS whose every protocol is restricted."""

    def __init__(self, server: Pair, authority: Authority) -> None:
        super().__init__([FakeModel("identity")])
        self._pair, self._authority = server, authority

    async def start(self) -> str:
        async def guard(continuation: Any, details: Any) -> Any:
            given = dict(details.invocation_metadata)
            if given.get("triton-grpc-protocol-fairlane") == "s3cret" and "x-client" not in given:
                return await continuation(details)

            async def refuse(request: Any, context: Any) -> None:
                del request
                await context.abort(grpc.StatusCode.UNAVAILABLE, "This protocol is restricted")

            return grpc.unary_unary_rpc_method_handler(refuse)

        class Guard(grpc.aio.ServerInterceptor):
            async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
                return await guard(continuation, handler_call_details)

        self._server = grpc.aio.server(interceptors=[Guard()])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials(
            [(self._pair.key.read_bytes(), self._pair.certificate.read_bytes())],
            self._authority.pair.certificate.read_bytes(),
            require_client_auth=True,
        )
        port = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()
        return f"127.0.0.1:{port}"


async def test_backend_behind_tls_and_a_restricted_protocol(
    serve: Any, request_of: Any, rows_of: Any, authority: Authority
) -> None:
    triton = GuardedTriton(authority.sign("triton", "triton"), authority)
    client = authority.sign("fairlane", "fairlane")
    tls = {"ca": authority.pair.certificate, "certificate": client.certificate, "key": client.key}
    secret = {"Fairlane": "s3cret"}
    backend = {"name": "b", "grpc": await triton.start(), "tls": tls, "restricted_protocol": secret}
    served = await serve(backends=[backend])
    hostile = (("triton-grpc-protocol-fairlane", "mine"), ("x-client", "1"))
    assert rows_of(await served.infer(request_of([[1]]), metadata=hostile)) == [[1]]
    assert "s3cret" not in repr(served.app._config)
    await triton.stop()


async def test_missing_file_of_a_backends_tls_is_named() -> None:
    config = Config.model_validate(
        {"listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"}, "backends": [BACKEND | {"tls": {"ca": "/nope.pem"}}]}
    )
    with pytest.raises(StartError, match=r"backends\.b\.tls: .*nope\.pem"):
        await App(config).start()
