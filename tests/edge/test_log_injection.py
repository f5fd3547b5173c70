"""Names from outside in the service's own logs: a line stays a line, and nothing steers a terminal."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from scheduler.triton.fake import FakeModel, FakeTriton
from tests.serving import serve_process

FORGED = "FORGED"
# A new line that looks like the service's own, the screen cleared, the title set, a C1 control, a line separator.
HOSTILE = f"x\n{FORGED} error\r{FORGED}\x1b[2J\x1b]0;{FORGED}\x07\x9b31m\u2028{FORGED}\x00\x7f"
# Nothing that a formatter would put into quotes.
TERSE = f"\x1b[2J\x1b]0;{FORGED}\x07"
# What is said to whoever started it.
SAID = {"stopping: finishing accepted requests", "waiting for a backend to be ready"}
# The colours of structlog's own lines.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


async def asked_in_every_hostile_way(text: str, address: str, http: str, request: Any) -> None:
    """Every field that a client can put text into; whatever it is answered."""
    async with grpc.aio.insecure_channel(address) as channel, aiohttp.ClientSession(http) as session:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        async def ask(method: str, message: Any, **about: Any) -> None:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await getattr(stub, method)(message, timeout=30, **about)

        good = request([[1]], id=text)
        await ask("ModelInfer", good)
        await ask("ModelInfer", request([[1]], model=text, id=text))
        await ask("ModelInfer", request([[1]], model_version=text))
        for name in ("x-tenant-id", "x-request-id", "x-priority", "x-llm-d-inference-objective", "traceparent"):
            # As far as gRPC lets it through at all: what is printable, and bytes in a -bin header.
            metadata = ((name, text.encode("ascii", "ignore").decode().translate(dict.fromkeys((*range(32), 127)))),)
            await ask("ModelInfer", good, metadata=(*metadata, ("x-any-bin", text.encode())))
        strange = request([[1]])
        strange.inputs[0].name = strange.inputs[0].datatype = text
        strange.parameters[text].string_param = text
        strange.outputs.add(name=text)
        await ask("ModelInfer", strange)
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            await ask(method, getattr(service_pb2, f"{method}Request")(model_name=text))
        for method in ("ModelMetadata", "ModelConfig", "ModelStatistics", "SystemSharedMemoryStatus"):
            await ask(method, getattr(service_pb2, f"{method}Request")(name=text))
        call = stub.ModelStreamInfer(iter([good, strange]), timeout=30)
        assert [answer async for answer in call]
        for path in ("/", f"/debug/requests/{text}", "/nowhere"):
            async with session.get(path, params={"match": text, "newest": text}) as reply:
                await reply.read()


@pytest.mark.parametrize("style", ["json", "console"])
async def test_no_text_of_a_client_or_a_backend_forges_a_line_or_steers_a_terminal(
    tmp_path: Path, request_of: Any, style: str
) -> None:
    # The backend's own names are strange, too.
    triton = FakeTriton((FakeModel("identity"), FakeModel(HOSTILE), FakeModel(TERSE)))
    backend = await triton.start()
    config, log, audit = tmp_path / "fairlane.yaml", tmp_path / "serve.err", tmp_path / "audit.log"
    settings = {"telemetry": {"logs": {"format": style, "level": "debug"}}, "audit_log": str(audit)}
    config.write_text(json.dumps(settings))
    try:
        async with serve_process(log, "--backend", backend, "--config", str(config)) as serving:
            for name in (HOSTILE, TERSE):
                triton.failures.append((grpc.StatusCode.INTERNAL, name.replace("\0", "")))
                await asked_in_every_hostile_way(name, serving.grpc, serving.http, request_of)
                await asked_in_every_hostile_way(name, serving.grpc, serving.http, request_of)
    finally:
        await triton.stop()
    for path in (log, audit):
        lines = path.read_bytes().decode().split("\n")
        assert len(lines) > 5
        for line in lines:
            plain = COLOUR.sub("", line)
            assert plain.isprintable(), line
            assert not plain.startswith(FORGED), line
    if style == "json":
        told = [line for line in log.read_text().split("\n") if line and line not in SAID]
        assert all(json.loads(line)["logger"] for line in told)
