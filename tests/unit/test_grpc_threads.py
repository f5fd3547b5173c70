"""gRPC's threads and their share of the CPU."""

import subprocess
import sys

# In a process of its own, whose gRPC is this test's alone; a thread's niceness can only grow.
SHOWN = """
import asyncio, os, threading
import grpc.aio
from scheduler.grpc_threads import give_way

async def main():
    own = threading.get_native_id()
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        channel.get_state(try_to_connect=True)
        give_way()
        told = {int(each): os.getpriority(os.PRIO_PROCESS, int(each)) for each in os.listdir("/proc/self/task")}
    print(told.pop(own), len(told), *set(told.values()))

asyncio.run(main())
"""
NICEST = 19


def test_grpcs_threads_are_nicer_than_the_event_loop_by_fifteen_steps() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOWN], check=True, capture_output=True, text=True)
    own, others, niceness = map(int, shown.stdout.split())
    assert others > 1
    assert niceness == min(own + 15, NICEST)
