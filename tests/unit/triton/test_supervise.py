"""The supervisor over plain programs: what it does for tritonserver it does for any."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from scheduler.triton import supervise


class Supervised:
    """A supervisor process running a shell command."""

    def __init__(self, directory, script, *, log_bytes=1 << 20, cpus=()):
        self.log = directory / "log"
        self.scratch = directory / "scratch"
        self.scratch.mkdir()
        self.prefix = f"fairlane_test_{uuid.uuid4().hex}"
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", supervise.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        spec = {
            "command": ["/bin/sh", "-c", script],
            "environment": dict(os.environ),
            "cpus": cpus,
            "log": str(self.log),
            "log_bytes": log_bytes,
            "shm_prefix": self.prefix,
            "scratch": str(self.scratch),
        }
        self.tell(json.dumps(spec))
        word, pid = self.process.stdout.readline().split()
        assert word == "pid"
        self.pid = int(pid)

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self):
        """The exit line, after the supervisor has ended."""
        line = self.process.stdout.readline().strip()
        self.process.wait(10)
        return line

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def run(tmp_path):
    started = []

    def start(script, **options):
        started.append(Supervised(tmp_path, script, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


def until(condition, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "not so in time"
        time.sleep(0.01)


def group_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_reports_the_exit_code_and_copies_the_output(run):
    supervised = run("echo out; echo err >&2; exit 7")
    assert supervised.end() == "exit 7"
    assert sorted(supervised.log.read_text().split()) == ["err", "out"]


def test_stop_is_sigterm(run):
    supervised = run("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")
    until(lambda: supervised.log.exists() and "up" in supervised.log.read_text())
    supervised.tell("stop 10")
    assert supervised.end() == "exit 3"
    assert "bye" in supervised.log.read_text()


def test_stop_kills_the_whole_group_after_the_grace(run):
    supervised = run("trap '' TERM; sleep 60 & echo up; sleep 60; sleep 60")
    until(lambda: supervised.log.exists() and "up" in supervised.log.read_text())
    supervised.tell("stop 0.1")
    assert supervised.end() == f"exit {-signal.SIGKILL}"
    assert group_gone(supervised.pid)


def test_children_left_behind_by_a_crash_are_killed_and_reaped(run):
    supervised = run("sleep 60 & exec sh -c 'kill -9 $$'")
    assert supervised.end() == f"exit {-signal.SIGKILL}"
    assert group_gone(supervised.pid)


def test_closed_input_kills_everything_and_removes_its_traces(run):
    supervised = run("sleep 60 & sleep 60")
    region = supervise.SHARED_MEMORY / f"{supervised.prefix}_region"
    region.write_bytes(b"left")
    supervised.process.stdin.close()
    assert supervised.end() == ""
    assert group_gone(supervised.pid)
    assert not region.exists()
    assert not supervised.scratch.exists()


def test_shared_memory_is_removed_at_an_ordinary_end_too(run):
    supervised = run("read nothing; sleep 0.2")
    region = supervise.SHARED_MEMORY / f"{supervised.prefix}_region"
    region.write_bytes(b"left")
    supervised.end()
    assert not region.exists()
    assert supervised.scratch.exists(), "a living parent still reads the log there"


def test_a_flood_of_output_neither_blocks_nor_grows_without_bound(run):
    supervised = run("head -c 1000000 /dev/zero | tr '\\0' x; echo; echo done", log_bytes=100_000)
    assert supervised.end() == "exit 0"
    assert supervised.log.read_text().endswith("done\n")
    assert sum(path.stat().st_size for path in supervised.log.parent.glob("log*")) <= 200_000


def test_runs_on_the_cpus_it_is_given(run):
    last = max(os.sched_getaffinity(0))
    supervised = run("grep Cpus_allowed_list /proc/self/status", cpus=[last])
    supervised.end()
    assert supervised.log.read_text().split() == ["Cpus_allowed_list:", str(last)]


def test_an_earlier_runs_log_is_kept_apart(run, tmp_path):
    (tmp_path / "log").write_text("E1122 an error of yesterday")
    supervised = run("echo today")
    supervised.end()
    assert supervised.log.read_text() == "today\n"
    assert "yesterday" in (tmp_path / "log.1").read_text()


def test_imports_nothing_that_makes_its_start_slow():
    """Nothing but the standard library: -I -S leaves no package on the path."""
    code = f"import runpy, sys; runpy.run_path({supervise.__file__!r}); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"asyncio", "aiohttp", "numpy", "grpc"} & set(out.split())
