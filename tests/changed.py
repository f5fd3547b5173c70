"""`make check` runs this: the quick tests of what changed since main.

    python -m tests.changed             # run them
    python -m tests.changed --list      # say which files they are

Changed is what differs from the merge base of HEAD and main, committed or not, and what git does not track yet.
These test files run:

- a changed test file, where its cost is no more than a model's (tests/costs.py);
- a unit or simulation test that imports a changed module: itself, or by a helper or `conftest.py` of its folder;
- a unit or simulation test whose text has the name of a changed file that is no module, such as `metrics.md`;
- the namesake of a changed module: `export/graph/x.py` has `tests/export/graph/test_x.py`, `scheduler/edge/x.py` has
  `tests/edge/test_x.py`.

Where that finds none, the first of these that finds any, at any cost but a real Triton's:

- the tests that import the module, of its own part: of `export` those in tests/export;
- the unit tests of the folder that is named as the module or its folder, such as tests/client;
- the tests of the module's own folder: of `scheduler/edge` those in tests/edge, of `scheduler/config` test_config.py;
  those that attack it from a load generator's processes or connections (they import `bench`) are left to `make test`.

Imports count one step deep. `make test` runs everything.
"""

import ast
import subprocess
import sys
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.costs import FOLDERS, MARKS

ROOT: Final = Path(__file__).parents[1]
BY_IMPORT: Final = frozenset({"unit", "sim"})
BY_NAME: Final = BY_IMPORT | {"model", "property", "service"}
AT_LAST: Final = frozenset(MARKS) - {"e2e"}


def main(arguments: list[str]) -> int:
    """Run them, or with `--list` print them; the exit code is pytest's, 0 where there is nothing to run."""
    tests = quick_tests(changed_files(ROOT), ROOT)
    if not tests:
        sys.stdout.write("No quick test is of what changed.\n")
        return 0
    if "--list" in arguments:
        sys.stdout.writelines(f"{path}\n" for path in tests)
        return 0
    return int(pytest.main(["-q", "-m", "not e2e", *tests]))


def changed_files(root: Path, main_branch: str = "main") -> list[str]:
    """Return the paths, relative to `root`, that differ from the merge base; without that branch, from HEAD."""
    base = _git(root, "merge-base", "HEAD", main_branch) or ["HEAD"]
    changed = _git(root, "diff", "--name-only", "--no-renames", base[0])
    return sorted({*changed, *_git(root, "ls-files", "--others", "--exclude-standard")})


def quick_tests(changed: Iterable[str], root: Path) -> list[str]:
    """Return the test files to run for these changed paths, relative to `root`, sorted."""
    tests = _Tests(root)
    found: set[Path] = set()
    for path in map(Path, changed):
        own = {each for each in tests.of_cost(BY_NAME) if each in {path, *_namesakes(path)}}
        if path.suffix == ".py":
            module = module_of(path)
            own |= {each for each in tests.of_cost(BY_IMPORT) if module in tests.imports(each)}
        else:
            own |= {each for each in tests.of_cost(BY_IMPORT) if path.name in tests.text(each)}
        found |= own or _at_last(path, tests)
    return sorted(map(str, found))


def _at_last(path: Path, tests: "_Tests") -> set[Path]:
    """What to run for a path of which no quick test is."""
    if path.parts[0] == "tests" or path.stem == "__init__":
        return set()
    candidates = tests.of_cost(AT_LAST)
    part = {path.parts[0], *_rooms(path)}
    if path.suffix == ".py":
        namesakes = {each for each in candidates if each in _namesakes(path)}
        module = module_of(path)
        importing = {each for each in candidates if each.parts[1] in part and module in tests.imports(each)}
        if namesakes or importing:
            return namesakes or importing
    named = {each for each in tests.of_cost(BY_IMPORT) if each.parts[1] in _rooms(path)}
    if named or path.suffix != ".py" or len(path.parts) < 3:
        return named
    lying_there = {each for each in candidates if each.parent in _folders(path) or each in _namesakes(path.parent)}
    return {each for each in lying_there if path.parts[0] == "bench" or not tests.loads(each)}


def module_of(path: Path) -> str:
    """Return the dotted name that a Python file is imported by: `client/fairlane/call.py` is `fairlane.call`."""
    parts = path.with_suffix("").parts
    parts = parts[1:] if parts[0] == "client" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


class _Tests:
    """The test files of a tree, and what they import: themselves, and through what else lies in tests/."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = [path.relative_to(root) for path in (root / "tests").rglob("test_*.py")]
        self.text = cache(self._text)
        self.imports = cache(self._imports)
        self._direct = cache(self._read)

    def of_cost(self, costs: Collection[str]) -> list[Path]:
        """Test files of these costs, relative to the root; a folder that has none yet is slow."""
        return [path for path in self._files if FOLDERS.get(path.parts[1], "slow") in costs]

    def loads(self, test: Path) -> bool:
        """Whether a test itself uses the load generator."""
        return any(module.split(".")[0] == "bench" for module in self._direct(self._root / test))

    def _text(self, path: Path) -> str:
        return (self._root / path).read_text()

    def _imports(self, test: Path) -> set[str]:
        # Every test has the conftest of tests/ itself: it tells nothing.
        folders = [self._root / folder for folder in test.parents if len(folder.parts) > 1]
        waiting = [self._root / test, *(path for each in folders if (path := each / "conftest.py").exists())]
        found: set[str] = set()
        while waiting:
            for module in self._direct(waiting.pop()) - found:
                found.add(module)
                helper = self._root / Path(*module.split(".")).with_suffix(".py")
                if module.startswith("tests.") and helper.exists():
                    waiting.append(helper)
        return found

    @staticmethod
    def _read(path: Path) -> frozenset[str]:
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
                # What is imported may be a module itself: `from fairlane import tensor`.
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
        return frozenset(found)


def _folders(path: Path) -> set[Path]:
    """Where tests of the path's folder lie: of `scheduler/triton` tests/unit/triton, of `scheduler/edge` tests/edge."""
    first, *rest = path.parent.parts
    if first != "scheduler":
        return {Path("tests", first, *rest)}
    return {Path("tests", "unit", *rest), Path("tests", *rest)}


def _namesakes(path: Path) -> set[Path]:
    """`scheduler/core/heap.py` has tests/unit/core/test_heap.py, `export/graph/opset.py` tests/export/graph/..."""
    if len(path.parts) == 1:
        return set()
    return {folder / f"test_{path.stem}.py" for folder in _folders(path)}


def _rooms(path: Path) -> set[str]:
    """Folders of tests/ that are named as the module or a folder that it lies in."""
    return set() if path.parts[0] == "tests" else {*path.parts[:-1], path.stem}


def _git(root: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
