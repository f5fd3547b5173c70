"""However the process that started Triton ends, Triton, its stubs and its shared memory end with it."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scheduler.triton.launcher import EmbeddedTriton

PARENT = """
import asyncio, json, os, sys, threading
from pathlib import Path
from scheduler.triton.launcher import EmbeddedTriton

async def main():
    triton = EmbeddedTriton(Path(sys.argv[1]))
    await triton.start()
    if sys.argv[2] == "fork" and os.fork() == 0:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        threading.Event().wait(60)  # holds a copy of every descriptor of its parent, the pipe too
        os._exit(0)
    print(triton.pid, flush=True)
    await triton.wait()

asyncio.run(main())
"""


def stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def alive(pid: int) -> bool:
    try:
        return stat(pid)[0] not in "ZX"
    except OSError:
        return False


def descendants(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(stat(int(entry.name))[1])
            except OSError:
                continue
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found[1:]


class Parent:
    """A process of its own that has started an embedded Triton."""

    def __init__(self, repository: Path, kind: str, scratch: Path) -> None:
        scratch.mkdir()
        self.scratch = scratch
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(repository), kind],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(scratch)},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.triton = int(self.process.stdout.readline())
        self.supervisor = int(stat(self.triton)[1])
        self.servers = descendants(self.supervisor)

    def regions(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"fairlane_triton_*_{self.process.pid}_*"))

    def nothing_left(self) -> bool:
        gone = not any(alive(pid) for pid in [self.supervisor, *self.servers])
        return gone and not self.regions() and not list(self.scratch.glob("fairlane_triton_*"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start_parent(models, tmp_path, poll_until):
    models.add_arithmetic()
    started = []

    def start(kind: str = "plain") -> Parent:
        started.append(Parent(models.path, kind, tmp_path / "scratch"))
        assert len(started[-1].servers) >= 2, "tritonserver and a stub"
        assert started[-1].regions()
        return started[-1]

    yield start
    for parent in started:
        parent.close()
        poll_until(parent.nothing_left)


def test_parent_killed_leaves_nothing(start_parent, poll_until):
    parent = start_parent()
    parent.process.kill()
    poll_until(parent.nothing_left)


def test_parent_killed_while_a_fork_of_it_holds_the_pipe_leaves_nothing(start_parent, poll_until):
    parent = start_parent("fork")
    forks = [pid for pid in descendants(parent.process.pid) if pid not in [parent.supervisor, *parent.servers]]
    parent.process.kill()
    try:
        poll_until(parent.nothing_left)
    finally:
        for pid in forks:
            os.kill(pid, signal.SIGKILL)


def test_supervisor_killed_ends_triton_and_the_parent_cleans_up(start_parent, poll_until):
    parent = start_parent()
    os.kill(parent.supervisor, signal.SIGKILL)
    poll_until(parent.nothing_left)
    parent.process.wait(15)  # its wait() returned


async def test_all_killed_together_leave_no_process_and_the_next_start_removes_the_rest(
    start_parent, models, poll_until, monkeypatch
):
    parent = start_parent()
    for pid in (parent.process.pid, parent.supervisor, parent.triton):
        os.kill(pid, signal.SIGKILL)
    poll_until(lambda: not any(alive(pid) for pid in parent.servers))
    parent.close()
    monkeypatch.setattr(tempfile, "tempdir", str(parent.scratch))
    triton = EmbeddedTriton(models.path)
    await triton.start()
    assert parent.regions() == []
    assert len(list(parent.scratch.glob("fairlane_triton_*"))) == 1, "the new server's own"
    await triton.stop(grace_s=0.0)


def test_interrupt_of_the_parents_group_does_not_reach_triton(start_parent):
    """Ctrl-C goes to the foreground group; Triton has to serve until the scheduler has drained."""
    parent = start_parent()
    assert os.getpgid(parent.process.pid) not in {os.getpgid(pid) for pid in [parent.supervisor, *parent.servers]}
    assert os.getsid(parent.process.pid) != os.getsid(parent.triton)
