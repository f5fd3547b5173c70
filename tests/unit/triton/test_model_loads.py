"""Loading models one by one, before a server that the test plays."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from scheduler.triton import model_loads
from scheduler.triton.model_loads import ModelLoads

ENSEMBLE = 'ensemble_scheduling { step { model_name: "b" } }'


class Server:
    """Notes what it is asked to load; holds what is in `held`, fails what is in `failures`, and ends at `fatal`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: set[str] = set()
        self.failures: dict[str, str] = {}
        self.fatal: set[str] = set()
        self.ended = asyncio.Event()

    async def RepositoryModelLoad(self, request: Any) -> None:  # noqa: N802
        name = request.model_name
        self.asked.append(name)
        if name in self.fatal:
            self.ended.set()
        if self.ended.is_set():
            raise error(grpc.StatusCode.UNAVAILABLE, "connection lost")
        if name in self.held:
            await asyncio.Event().wait()
        if name in self.failures:
            raise error(grpc.StatusCode.INTERNAL, self.failures[name])


def error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_loads, "SLOW_S", 0.01)
    monkeypatch.setattr(model_loads, "SETTLE_S", 0.01)
    monkeypatch.setattr(model_loads, "LOG_PATIENCE_S", 0.01)


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def loads(tmp_path: Path, log: list[str]) -> ModelLoads:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    return ModelLoads(tmp_path, lambda: log)


def why(loads: ModelLoads) -> dict[str, str]:
    return {name: about.why for name, about in loads.unserved().items()}


async def crash(loads: ModelLoads, **about: Any) -> Server:
    """Load into a server until it ends."""
    server = Server()
    server.fatal = about.get("fatal", set())
    run = asyncio.create_task(loads.run(server))
    await server.ended.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert loads.server_ended(-11, about.get("served", frozenset()))
    return server


async def test_each_is_loaded_and_all_are_told_of_when_done(loads: ModelLoads) -> None:
    server = Server()
    await loads.run(server)
    assert server.asked == ["a", "b", "c"]
    assert loads.done.is_set()
    assert loads.changed.is_set()
    assert why(loads) == {}
    await asyncio.sleep(model_loads.SETTLE_S)
    assert not loads.server_ended(-9, {"a", "b", "c"})


async def test_what_fails_is_named_with_the_servers_words_and_the_others_are_loaded(
    loads: ModelLoads, log: list[str]
) -> None:
    server = Server()
    server.failures = {
        "a": "load failed for model 'a': version 1 is at UNAVAILABLE state: Internal: no licence\n\nAt:\n  model.py;\n",
        "b": "failed to load 'b', failed to poll from model repository",
        "c": "failed to load 'c', failed to poll from model repository",
    }
    log.append("E1130 1 2 manager.cc:1460] \"Poll failed for model directory 'b': no config.pbtxt\"")
    await loads.run(server)
    assert why(loads) == {
        "a": "Internal: no licence",
        "b": "no config.pbtxt",
        "c": "failed to load 'c', failed to poll from model repository",
    }
    assert not any(about.loading for about in loads.unserved().values())
    assert loads.done.is_set()


async def test_what_blocks_is_not_waited_for(
    loads: ModelLoads, log: list[str], tmp_path: Path, eventually: Any
) -> None:
    log.append(f"I1 pb_stub.cc:2105]  Failed to preinitialize Python stub: no file '{tmp_path}/a/1/model.py'")
    server = Server()
    server.held = {"a"}
    run = asyncio.create_task(loads.run(server))
    await eventually(lambda: "c" in server.asked and list(why(loads)) == ["a"] and "no file" in why(loads)["a"])
    assert loads.unserved()["a"].loading
    assert not loads.done.is_set()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)


async def test_a_folder_that_is_gone_is_not_told_of(loads: ModelLoads, tmp_path: Path) -> None:
    server = Server()
    server.failures = {"a": "no"}
    await loads.run(server)
    (tmp_path / "a").rmdir()
    assert why(loads) == {}


async def test_what_ends_the_server_each_time_is_found_and_left_out(loads: ModelLoads, tmp_path: Path) -> None:
    await crash(loads, fatal={"b"})
    second = await crash(loads, fatal={"b"})
    assert second.asked[-1] == "b"
    third = await crash(loads, fatal={"b"})
    assert third.asked[-1] == "b"
    last = Server()
    last.fatal = {"b"}
    (tmp_path / "of_b").mkdir()
    (tmp_path / "of_b" / "config.pbtxt").write_text(ENSEMBLE)
    await loads.run(last)
    assert loads.done.is_set()
    assert last.asked == ["a", "c"]
    assert "ended, last with -11, each time" in why(loads)["b"]
    assert why(loads)["of_b"].startswith("its step b is not loaded: tritonserver ended")
    # With other files it is tried again.
    (tmp_path / "b" / "config.pbtxt").touch()
    repaired = Server()
    await loads.run(repaired)
    assert repaired.asked == ["a", "b", "c", "of_b"]
    assert why(loads) == {}


async def test_what_was_loaded_by_hand_is_loaded_again(loads: ModelLoads) -> None:
    for _ in range(3):
        await crash(loads, fatal={"b"})
    await loads.run(Server())
    await asyncio.sleep(model_loads.SETTLE_S)
    assert "b" in why(loads)
    assert not loads.server_ended(-9, {"a", "b", "c"})
    again = Server()
    await loads.run(again)
    assert "b" in again.asked


async def test_what_was_served_before_comes_first(loads: ModelLoads) -> None:
    await crash(loads, fatal={"a"}, served={"c"})
    second = await crash(loads, fatal={"a"}, served={"b", "c"})
    assert second.asked == ["c", "a"]
    server = Server()
    await loads.run(server)
    assert server.asked == ["c", "b", "a"]  # c is no suspect any more, and b was served


async def test_one_end_of_a_server_accuses_nobody(loads: ModelLoads) -> None:
    await crash(loads, fatal={"a"})
    server = Server()
    await loads.run(server)
    assert sorted(server.asked) == ["a", "b", "c"]
    assert why(loads) == {}
    assert not loads._suspects


async def test_what_said_that_it_was_loaded_a_moment_before_the_end_is_loaded_apart(
    loads: ModelLoads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loads, "SETTLE_S", 60.0)
    await loads.run(Server())
    assert loads.server_ended(-11, {"a", "b", "c"})
    assert sorted(loads._suspects) == ["a", "b", "c"]


async def test_an_unreadable_repository_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loads = ModelLoads(tmp_path / "absent", list)
    await loads.run(Server())
    assert "cannot be read" in caplog.text
    assert not loads.done.is_set()
