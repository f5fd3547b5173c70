"""The servers under test as processes, without Triton where that is possible."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from bench.load.generator_process import run_jobs
from bench.load.job import Job
from bench.load.stream import Stream
from bench.targets.fairlane import fairlane
from bench.targets.nginx import nginx, nginx_path
from bench.targets.proxy import proxy
from bench.targets.target import Target, TargetError

needs_nginx = pytest.mark.skipif(
    nginx_path() is None, reason="no nginx on this machine: it is in Debian's package nginx (make test fetches it)"
)


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch, kserve: Any) -> Callable[[Any], list[Any]]:
    """A fake Triton for the targets that put something before one."""

    def put(answer: Any) -> list[Any]:
        servers: list[Any] = []

        @asynccontextmanager
        async def triton(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
            async with kserve(answer).running() as server:
                servers.append(server)
                yield Target(grpc=server.address)

        for hop in ("proxy", "nginx"):
            monkeypatch.setattr(f"bench.targets.{hop}.triton", triton)
        return servers

    return put


def job(target: Target, out: Path) -> Job:
    stream = Stream.model_validate({"model": "minilm", "class": "interactive", "tenant": "t", "rate_per_s": 60})
    return Job(
        target=target.grpc, name="one", stream=stream, rate_per_s=60.0, duration_s=0.3, seed=1, triton_priority=None,
        out=out / "one.json",
    )  # fmt: skip


async def test_a_fairlane_that_does_not_start_is_said_with_its_reason(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("no_such_key: 1\n")
    with pytest.raises(TargetError, match=r"ended with code [1-9][\s\S]*no_such_key"):
        async with fairlane(tmp_path, config, log=tmp_path / "log"):
            pytest.fail("it must not become ready")


async def test_the_proxy_passes_requests_and_answers_through(behind: Any, at_once: Any, tmp_path: Path) -> None:
    servers = behind(at_once)
    async with proxy(tmp_path, log=tmp_path / "log") as target:
        recording = (await run_jobs([job(target, tmp_path)]))["one"]
        assert target.hop_pid is not None
        assert psutil.pid_exists(target.hop_pid)
    assert recording.counts["ok"].sum() == recording.counts["arrived"].sum() == len(servers[0].seen) > 0
    assert not psutil.pid_exists(target.hop_pid)


async def test_the_proxy_passes_errors_through(behind: Any, tmp_path: Path) -> None:
    async def refuse(context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full")

    behind(refuse)
    async with proxy(tmp_path, log=tmp_path / "log") as target:
        recording = (await run_jobs([job(target, tmp_path)]))["one"]
    assert recording.first_error == "RESOURCE_EXHAUSTED: queue full"


@needs_nginx
async def test_nginx_passes_requests_and_answers_through(behind: Any, at_once: Any, tmp_path: Path) -> None:
    servers = behind(at_once)
    async with nginx(tmp_path, log=tmp_path / "log") as target:
        recording = (await run_jobs([job(target, tmp_path)]))["one"]
    assert recording.counts["ok"].sum() == recording.counts["arrived"].sum() == len(servers[0].seen) > 0


@needs_nginx
async def test_nginx_has_more_requests_at_triton_than_a_default_nginx_has_connections(
    behind: Any, tmp_path: Path
) -> None:
    at_once = 1500
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the server here has a connection for each
    there = 0
    all_there = asyncio.Event()

    async def answer(context: grpc.aio.ServicerContext) -> None:
        nonlocal there
        there += 1
        if there == at_once:
            all_there.set()
        await all_there.wait()

    behind(answer)
    async with nginx(tmp_path, log=tmp_path / "log") as target:
        flood = job(target, tmp_path)
        stream = flood.stream.model_copy(update={"rate_per_s": None, "outstanding": at_once})
        recording = (await run_jobs([flood.model_copy(update={"stream": stream, "duration_s": 3.0})]))["one"]
    assert recording.errors == {}
    assert recording.counts["ok"].sum() >= at_once
