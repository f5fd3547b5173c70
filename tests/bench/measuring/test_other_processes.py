import subprocess
import sys

import pytest

from bench.measuring import other_processes
from bench.measuring.other_processes import OtherProcesses, descendants_cpu_s, machine_cpu_s, own_cpu_s

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"


def test_what_this_process_and_its_children_take_is_not_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    # The machine as if nobody else were on it: only what is known to be ours moves its clock.
    base = own_cpu_s()
    monkeypatch.setattr(other_processes, "machine_cpu_s", lambda: own_cpu_s() - base)
    watch = OtherProcesses()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert own_cpu_s() - base >= 0.2  # the kernel counts in ticks
    assert watch.cores() == pytest.approx(0, abs=0.05)


def test_what_others_take_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(other_processes, "machine_cpu_s", lambda: next(clock))
    monkeypatch.setattr(other_processes, "own_cpu_s", lambda: 0.0)
    monkeypatch.setattr(other_processes, "descendants_cpu_s", dict)
    times = iter([10.0, 14.0])
    monkeypatch.setattr("bench.measuring.other_processes.time.monotonic", lambda: next(times))
    assert OtherProcesses().cores() == 0.5


def test_living_children_are_counted() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", BURN + "print(1, flush=True)\ninput()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert descendants_cpu_s()[child.pid] >= 0.25
    finally:
        child.communicate(b"\n")
    assert machine_cpu_s() > 0.3
