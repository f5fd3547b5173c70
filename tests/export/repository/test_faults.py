"""A change of what is served that is killed, or finds the disk full, at any step: old or new is served, whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.repository.faults import CHANGES, FAULTS

ROOT = Path(__file__).parents[3]
Wrong = dict[str, dict[str, list[str | None]]]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Wrong:
    """What was wrong after each step that failed. In a process of its own, as this one has threads and cannot fork."""
    command = [sys.executable, "-m", "tests.export.repository.faults", str(tmp_path_factory.mktemp("faults"))]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: Wrong = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("change", CHANGES)
def test_old_or_new_is_served_whole_and_the_change_can_be_repeated(wrong: Wrong, change: str, fault: str) -> None:
    steps = wrong[change][fault]
    assert [step for step in steps if step is not None] == []
    assert len(steps) > 3
