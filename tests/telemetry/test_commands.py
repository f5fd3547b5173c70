"""`fairlane top` and `fairlane explain` against a whole service; commands run in a thread, as they block."""

import asyncio
import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from scheduler.cli import main
from scheduler.commands.top import _limit, binary, duration, share_bar, sparkline
from tests.edge.test_access import hashed


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, list(arguments), env={"COLUMNS": "160"})


async def test_top_shows_classes_tenants_models_and_backends(serve: Any, request_of: Any) -> None:
    served = await serve()
    await served.infer(request_of([[1]]), metadata=(("x-tenant-id", "[bold]acme"),))
    await asyncio.sleep(0)
    result = await run("top", "--once", "--http", served.addresses.http)
    assert result.exit_code == 0, result.output
    for word in ("● ready", "interactive", "background", "[bold]acme", "two_instances", "fake"):
        assert word in result.output


async def test_top_tells_the_limit_across_models_and_why_it_moved(
    serve: Any, request_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.core.backends.concurrency.QUIET_S", 1e-9)
    served = await serve()
    told = (await run("top", "--once", "--http", served.addresses.http)).output
    assert "beside a more important model at most 1: nothing is known yet" in told
    for number in range(2):
        await served.infer(request_of([[number]]), metadata=(("x-priority", "interactive"),))
    told = (await run("top", "--once", "--http", served.addresses.http)).output
    assert re.search(r"0 lesser batches; beside a more important model at most \d+, moved \d+ s ago: quiet", told)


def test_one_model_by_itself_has_no_limit_to_show() -> None:
    assert _limit({"models": 1}) == ""


async def test_explain_tells_a_requests_story(serve: Any, request_of: Any) -> None:
    served = await serve()
    await served.infer(request_of([[1]], id="r/1"), metadata=(("x-tenant-id", "acme"),))
    result = await run("explain", "r/1", "--http", served.addresses.http)
    assert result.exit_code == 0, result.output
    assert "r/1  completed in" in result.output
    assert "left for fake in batch 1: alone, 1 row" in result.output
    assert "Fair order" in result.output
    machine = await run("explain", "r/1", "--json", "--http", served.addresses.http)
    assert json.loads(machine.output)["tenant"] == "acme"


async def test_explain_without_an_id_lists_the_slowest(serve: Any, request_of: Any) -> None:
    served = await serve()
    for name in ("first", "second"):
        await served.infer(request_of([[1]], id=name))
    result = await run("explain", "--http", served.addresses.http)
    assert {"first", "second"} <= set(result.output.split())


async def test_id_that_would_steer_the_terminal_is_shown_as_text(serve: Any, request_of: Any) -> None:
    served = await serve()
    await served.infer(request_of([[1]], id="\x1b[2Jgone"))
    for arguments in (("explain",), ("explain", "\x1b[2Jgone")):
        result = await run(*arguments, "--http", served.addresses.http)
        assert "\\x1b[2Jgone" in result.output
        assert "\x1b[2J" not in result.output


async def test_key_is_shown_where_it_is_asked_for(serve: Any) -> None:
    served = await serve(tenants={"acme": {"api_keys": [hashed("one")], "monitor": True}})
    refused = await run("explain", "--http", served.addresses.http)
    assert refused.exit_code == 1
    assert "expected an API key" in refused.output
    for command in (("explain",), ("top", "--once")):
        assert (await run(*command, "--api-key", "one", "--http", served.addresses.http)).exit_code == 0


async def test_request_that_has_left_the_ring_is_named(serve: Any) -> None:
    served = await serve()
    result = await run("explain", "gone", "--http", served.addresses.http)
    assert result.exit_code == 1
    assert "no request 'gone'" in result.output


@pytest.mark.parametrize("command", [("top", "--once"), ("explain", "x")])
async def test_service_that_is_not_there_is_named(command: tuple[str, ...]) -> None:
    result = await run(*command, "--http", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "is `fairlane serve` running?" in result.output


def test_sparkline_keeps_the_highest_of_each_step_and_ends_with_now() -> None:
    assert sparkline([]).plain == ""
    assert sparkline([0, 4, 8]).plain == " ▄█"
    many = [0] * 100 + [9]
    assert sparkline(many).plain.endswith("█")
    assert len(sparkline(many).plain) <= 24


def test_share_bar_marks_what_is_due() -> None:
    assert share_bar(0.5, 0.25).plain == "█" * 6 + "│" + "█" * 5 + "·" * 12
    assert len(share_bar(1.0, 1.0).plain) == 24


def test_durations_are_readable() -> None:
    assert [duration(s) for s in (None, 0.0002, 0.0042, 0.25, 3.25)] == ["-", "200 us", "4.2 ms", "250 ms", "3.2 s"]


def test_bytes_are_readable() -> None:
    assert [binary(count) for count in (0, 840, 5000, 2**28, 3 * 2**30)] == [
        "0 B",
        "840 B",
        "4.9 KiB",
        "256.0 MiB",
        "3.0 GiB",
    ]
