"""Processes that would run on other machines, and here give way to what is measured.

`nice` weighs the threads of one session only: Linux puts each session into a group of its own (sched(7), "The autogroup
feature"), and groups share a CPU evenly, however nice their threads are. Servers that are measured are in sessions of
their own; so a process that gives way to them must be in one, too, and make the group nice.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

LOWEST: Final = 19
AUTOGROUP: Final = Path("/proc/self/autogroup")
RETRY_S: Final = 0.1
ATTEMPTS: Final = 50


def lower_cpu_priority(niceness: int) -> None:
    """Put this process into a session of its own, and give that the niceness of `nice`.

    Where this process leads a group, as one that a shell started does, it stays in its session, which is not to be
    made nice with it.

    Args:
        niceness: 1 to 19, on top of what this process has; each step takes a tenth of the CPU time.
    """
    os.nice(niceness)
    with contextlib.suppress(PermissionError):
        os.setsid()
        with contextlib.suppress(FileNotFoundError):  # a kernel without autogroups: `nice` means what it says
            _make_group_nice(niceness)


def _make_group_nice(niceness: int) -> None:
    """The kernel takes one such change in 0.1 s from all who are not root, and several processes start at a time."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(BlockingIOError):
            AUTOGROUP.write_text(f"{niceness}\n")
            return
        time.sleep(RETRY_S)
    raise TimeoutError(f"{AUTOGROUP}: the kernel was busy with others' changes for {ATTEMPTS * RETRY_S:g} s")
