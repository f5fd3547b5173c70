"""gRPC's poller thread and its share of the CPU."""

import subprocess
import sys

# In a process of its own: gRPC's poller starts once in a process's life.
SHOWN = """
import os, threading
from scheduler.poller import give_way
before = set(threading.enumerate())
give_way()
own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
print(own, *[os.getpriority(os.PRIO_PROCESS, thread.native_id) for thread in set(threading.enumerate()) - before])
"""
NICEST = 19


def test_grpcs_poller_is_nicer_than_the_event_loop_by_fifteen_steps() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOWN], check=True, capture_output=True, text=True)
    own, poller = map(int, shown.stdout.split())
    assert poller == min(own + 15, NICEST)
