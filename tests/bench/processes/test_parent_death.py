import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import psutil

from bench.processes.parent_death import killed_with_parent


async def test_a_process_is_killed_with_the_one_that_started_it(eventually: Callable[..., Awaitable[None]]) -> None:
    # A parent that starts such a child, says its id, and is killed with SIGKILL.
    script = (
        "import subprocess, sys, time; from bench.processes.parent_death import killed_with_parent;"
        "command = (sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)');"
        "child = subprocess.Popen(killed_with_parent(*command),"
        " stdout=subprocess.PIPE); child.stdout.readline(); print(child.pid, flush=True); time.sleep(600)"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    assert child.is_running()
    parent.send_signal(signal.SIGKILL)
    await parent.communicate()
    await eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_it_is_this_process_that_it_ends_with() -> None:
    assert str(os.getpid()) in killed_with_parent("x")
