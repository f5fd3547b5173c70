import psutil
import pytest

from bench.processes.piped_process import PipedProcess


async def test_lines_are_told_and_answered() -> None:
    async with PipedProcess("base64", "-d") as process:
        process.tell("ZmFpcgpsYW5lCg==")
        assert process._running().stdin is not None
        process._running().stdin.close()
        assert [await process.answer(), await process.answer(), await process.answer()] == [b"fair\n", b"lane\n", b""]
        assert await process.wait() == 0


async def test_what_it_complained_of_is_kept() -> None:
    async with PipedProcess("no_such_module_anywhere") as process:
        assert await process.answer() == b""
        assert "No module named no_such_module_anywhere" in await process.stderr_tail()


async def test_it_is_gone_when_the_context_is_left() -> None:
    async with PipedProcess("base64", "-d") as process:
        pid = process._running().pid
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


async def test_outside_of_its_context_there_is_none() -> None:
    with pytest.raises(AssertionError, match="use PipedProcess as a context"):
        PipedProcess("base64").tell("")
