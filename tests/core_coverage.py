"""`make core-coverage`: every file of the core is covered in full, branches included, by its own unit test file alone.

One pytest run over tests/unit/core; what each line owes to which test file is told apart by coverage contexts,
named for the file that runs. `scheduler/core/X.py` is then looked at in the context `test_X` and in that of
imports, so a line that only another file's tests reach counts as uncovered.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import coverage
import pytest
from rich.console import Console

ROOT = Path(__file__).parent.parent
CORE = ROOT / "scheduler" / "core"
TESTS = ROOT / "tests" / "unit" / "core"


class FileContexts:
    """A pytest plugin: the coverage context is the stem of the running test's file."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._measured.switch_context(item.path.stem)
        try:
            return (yield)
        finally:
            self._measured.switch_context("")


def main() -> int:
    """Print what is missing; 1 where anything is, or where a test fails."""
    console = Console()
    with TemporaryDirectory() as folder:
        measured = coverage.Coverage(data_file=f"{folder}/coverage", branch=True, source=[str(CORE)], config_file=False)
        measured.start()
        try:
            code = pytest.main(["-q", "-p", "no:cacheprovider", str(TESTS)], plugins=[FileContexts(measured)])
        finally:
            measured.stop()
        if code:
            return int(code)
        measured.save()
        paths = sorted(CORE.rglob("*.py"))
        lacking = {str(path.relative_to(CORE)): report for path in paths if (report := missing(measured, path))}
    for name, report in lacking.items():
        console.print(f"[bold red]scheduler/core/{name}[/] is not covered by its own tests: {report}", highlight=False)
    if not lacking:
        console.print(
            f"Every file of scheduler/core is covered in full by {TESTS.relative_to(ROOT)}/test_NAME.py alone."
        )
    return 1 if lacking else 0


def missing(measured: coverage.Coverage, path: Path) -> str:
    """Lines and branches (`from->to`) that the file's own tests do not reach; empty: none."""
    text = io.StringIO()
    contexts = ["^$", f"^test_{path.stem}$"]
    percent = measured.report([str(path)], show_missing=True, contexts=contexts, file=text, precision=2)
    if percent == 100:
        return ""
    (row,) = (line for line in text.getvalue().splitlines() if f"/{path.name}" in line)
    return row.partition("%")[2].strip()


if __name__ == "__main__":
    sys.exit(main())
