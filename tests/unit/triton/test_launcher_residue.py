import os
import subprocess
import sys
import tempfile

import pytest

from scheduler.triton import launcher_residue, supervise


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A stand-in for the temporary directory and one for /dev/shm."""
    scratch, shared = tmp_path / "tmp", tmp_path / "shm"
    scratch.mkdir()
    shared.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(supervise, "SHARED_MEMORY", shared)
    return scratch, shared


def dead_pid():
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    process.wait()
    return process.pid


def leave(places, name):
    """Both traces of a server of that name."""
    scratch, shared = places
    (scratch / name / "backends").mkdir(parents=True)
    (shared / f"{name}_region").touch()
    return lambda: ((scratch / name).exists(), (shared / f"{name}_region").exists())


def test_names_differ():
    assert launcher_residue.new_name() != launcher_residue.new_name()


def test_traces_of_a_dead_owner_are_removed(places):
    mine = launcher_residue.new_name()
    there = leave(places, mine.replace(f"_{os.getpid()}_", f"_{dead_pid()}_"))
    launcher_residue.remove_stale()
    assert there() == (False, False)


def test_traces_of_a_living_owner_stay(places):
    there = leave(places, launcher_residue.new_name())
    launcher_residue.remove_stale()
    assert there() == (True, True)


def test_traces_of_another_pid_namespace_stay(places):
    there = leave(places, f"fairlane_triton_1_{dead_pid()}_{'0' * 12}")
    launcher_residue.remove_stale()
    assert there() == (True, True)


def test_other_names_stay(places):
    there = leave(places, f"fairlane_triton_notes_{dead_pid()}")
    launcher_residue.remove_stale()
    assert there() == (True, True)
