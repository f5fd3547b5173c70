"""`python -m tests.changed`: which tests a change asks for."""

import subprocess
from pathlib import Path

import pytest

from tests.changed import changed_files, quick_tests
from tests.costs import FOLDERS, MARKS, cost_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository's tests: one of each kind."""
    texts = {
        "tests/conftest.py": "import scheduler.app",
        "tests/unit/core/conftest.py": "from tests.unit.core.build import build",
        "tests/unit/core/build.py": "from scheduler.core.settings import CoreSettings",
        "tests/unit/core/test_heap.py": "from scheduler.core import heap",
        "tests/telemetry/test_metrics.py": 'PAGE = "metrics.md"',
        "tests/sim/test_world.py": "import simulate.world.clock",
        "tests/client/test_call.py": "from fairlane.call import Call",
        "tests/export/graph/test_opset.py": "from export.errors import Wrong",
        "tests/e2e/test_serve.py": "from scheduler.core import heap",
        "tests/edge/test_infer.py": "from scheduler.app import App",
        "tests/edge/test_classify.py": "from scheduler.edge.classify import classify",
        "tests/edge/test_attack.py": "from bench.attack.measure import measure",
        "tests/unit/test_config.py": "from scheduler.config import Config",
        "tests/bench/load/test_payload.py": "from bench.load.payload import payload",
        "tests/bench/test_real.py": "import bench.capacity",
    }
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        ("scheduler/core/heap.py", ["tests/unit/core/test_heap.py"]),
        ("scheduler/core/settings.py", ["tests/unit/core/test_heap.py"]),
        ("tests/unit/core/build.py", ["tests/unit/core/test_heap.py"]),
        ("client/fairlane/call.py", ["tests/client/test_call.py"]),
        ("simulate/world/clock.py", ["tests/sim/test_world.py"]),
        ("docs/reference/metrics.md", ["tests/telemetry/test_metrics.py"]),
        ("export/graph/opset.py", ["tests/export/graph/test_opset.py"]),
        ("tests/export/graph/test_opset.py", ["tests/export/graph/test_opset.py"]),
        ("client/fairlane/retry.py", ["tests/client/test_call.py"]),
        ("scheduler/telemetry/logs.py", ["tests/telemetry/test_metrics.py"]),
        ("scheduler/edge/classify.py", ["tests/edge/test_classify.py"]),
        # No quick test is of these: what imports them in their own part, or lies in their folder.
        ("export/errors.py", ["tests/export/graph/test_opset.py"]),
        ("bench/load/payload.py", ["tests/bench/load/test_payload.py"]),
        ("bench/load/sender.py", ["tests/bench/load/test_payload.py"]),
        ("bench/capacity.py", ["tests/bench/test_real.py"]),
        ("scheduler/edge/intake.py", ["tests/edge/test_classify.py", "tests/edge/test_infer.py"]),
        ("scheduler/config/limits.py", ["tests/unit/test_config.py"]),
        # What every test imports, and what needs a real Triton, is `make test`'s.
        ("scheduler/app.py", []),
        ("tests/e2e/test_serve.py", []),
    ],
)
def test_the_quick_tests_of_a_change(tree: Path, changed: str, tests: list[str]) -> None:
    assert quick_tests([changed], tree) == tests


def test_changed_is_what_differs_from_the_merge_base_committed_or_not(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "init.defaultBranch=main")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    def commit(name: str) -> None:
        (tmp_path / name).write_text(name)
        git("add", name)
        git("commit", "-m", name)

    git("init")
    commit("old.py")
    git("checkout", "-b", "change")
    commit("committed.py")
    (tmp_path / "old.py").write_text("edited")
    (tmp_path / "untracked.py").write_text("new")
    git("checkout", "main", "--force")
    commit("of_others.py")
    git("checkout", "change")
    (tmp_path / "old.py").write_text("edited")
    assert changed_files(tmp_path) == ["committed.py", "old.py", "untracked.py"]
    assert changed_files(tmp_path, "none") == ["old.py", "untracked.py"]


def test_every_folder_of_tests_has_a_cost() -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders == set(FOLDERS)
    assert set(FOLDERS.values()) == set(MARKS)


def test_a_test_that_asks_for_a_real_triton_is_e2e_wherever_it_lies() -> None:
    assert cost_of("edge", ["tmp_path"]) == "service"
    assert cost_of("edge", ["tmp_path", "start_triton"]) == "e2e"
