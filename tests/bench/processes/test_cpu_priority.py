"""A process that gives way, as it is afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import cpu_priority

AFTERWARDS = """
import os
from bench.processes.cpu_priority import AUTOGROUP, lower_cpu_priority
lower_cpu_priority(7)
print(os.nice(0), os.getsid(0) == os.getpid(), *(AUTOGROUP.read_text().split()[-1:] if AUTOGROUP.exists() else [7]))
"""


def afterwards(*, leads_a_group: bool) -> list[str]:
    command = [sys.executable, "-c", AFTERWARDS]
    group = 0 if leads_a_group else None
    return subprocess.run(command, check=True, capture_output=True, text=True, process_group=group).stdout.split()


def test_its_session_is_its_own_and_is_nice_as_a_whole() -> None:
    assert afterwards(leads_a_group=False) == [str(min(19, os.nice(0) + 7)), "True", "7"]


def test_the_session_of_who_started_it_is_not_made_nice() -> None:
    autogroup = Path("/proc/self/autogroup")  # empty in the first session of a machine, which has no group of its own
    before = autogroup.read_text() if autogroup.exists() else ""
    assert afterwards(leads_a_group=True)[:2] == [str(min(19, os.nice(0) + 7)), "False"]
    assert not before or autogroup.read_text() == before


class Busy:
    """The file, while the kernel has others' changes to take for so many attempts."""

    def __init__(self, attempts: int) -> None:
        self.attempts, self.written = attempts, ""

    def write_text(self, text: str) -> None:
        if self.attempts:
            self.attempts -= 1
            raise BlockingIOError
        self.written = text


def test_it_is_tried_again_while_the_kernel_takes_others_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Busy(3)
    monkeypatch.setattr(cpu_priority, "AUTOGROUP", group)
    monkeypatch.setattr(cpu_priority, "RETRY_S", 0.0)
    cpu_priority._make_group_nice(5)
    assert group.written == "5\n"
    group.attempts = cpu_priority.ATTEMPTS
    with pytest.raises(TimeoutError, match="the kernel was busy"):
        cpu_priority._make_group_nice(5)
