"""What is told while a run goes on."""

import io

from rich.console import Console

from bench.terminal.progress import RunProgress


async def steps(console: Console) -> None:
    with RunProgress(console, "isolation", 20) as progress:
        for name in ("starting triton", "flood on triton"):
            async with progress.step(name, 10):
                pass


async def test_log_file_gets_a_line_a_step() -> None:
    output = io.StringIO()
    await steps(Console(file=output, force_terminal=False))
    assert output.getvalue().split("\n")[:2] == ["isolation: starting triton, 10 s", "isolation: flood on triton, 10 s"]


async def test_terminal_gets_one_line_that_changes() -> None:
    output = io.StringIO()
    await steps(Console(file=output, force_terminal=True))
    assert "isolation" in output.getvalue()
    assert "isolation: " not in output.getvalue()
