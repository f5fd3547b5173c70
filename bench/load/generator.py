"""The generator process: `python -m bench.load.generator`, one stream each.

Reads the job (a `Job` as one line of JSON) on stdin, connects, builds its request, prints `ready`, reads one more
line: the moment to start, in seconds of CLOCK_MONOTONIC, which all processes of a machine share. It then runs the
stream, writes its recording to the job's file, and ends. Streams live in processes of their own, so that the answers
to a flood do not delay the clock reading of an interactive answer. Where its parent is gone instead of a start line,
it ends.
"""

import asyncio
import gc
import sys
import time
from typing import Final

from bench.load.arrivals import offsets_s
from bench.load.job import Job
from bench.load.loops import closed_loop, open_loop
from bench.load.sender import Sender
from bench.processes.cpu_priority import lower_cpu_priority

NICE: Final = 5


async def run_stream(sender: Sender, job: Job, *, start_s: float) -> None:
    """Run the job from the monotonic time `start_s`, wait its grace, and write what was recorded."""
    sender.begin(start_s)
    await asyncio.sleep(max(0.0, -sender.now_s()))
    cpu_s = time.process_time()
    await _run_loop(sender, job)
    await asyncio.sleep(max(0.0, job.duration_s - sender.now_s()))
    await sender.drained(job.stream.grace_s)
    cpu_s = time.process_time() - cpu_s
    sender.recorder.save(job.out, end_s=sender.now_s(), cpu_s=cpu_s)
    sender.close()


async def _run_loop(sender: Sender, job: Job) -> None:
    stream = job.stream
    if stream.outstanding is None:
        due_s = offsets_s(
            stream.arrivals, job.rate_per_s, job.duration_s, profile=stream.profile, seed=job.seed, stream=job.name
        )
        await open_loop(sender, due_s, (stream.tick_ms or 0.0) / 1e3)
        return
    try:
        limit_s = job.duration_s + stream.grace_s - sender.now_s()
        await asyncio.wait_for(closed_loop(sender, stream.outstanding, job.duration_s), limit_s)
    except TimeoutError:
        pass  # what the server still owes stays unanswered in the recording


async def generate(job: Job) -> None:
    """Connect, tell the parent, wait for its start line, run."""
    sender = await Sender.prepare(job)
    print("ready", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    if line:
        await run_stream(sender, job, start_s=float(line))


def main() -> None:
    """Entry point of the process."""
    job = Job.model_validate_json(sys.stdin.readline())
    if job.stream.lateness_p99_bound_ms is None:
        # Whose moments do not matter gives way to what is measured: it would not share its machine elsewhere.
        lower_cpu_priority(NICE)
    # A full collection with tens of thousands of calls alive stops the loop for 100 ms and more.
    gc.freeze()
    gc.disable()
    asyncio.run(generate(job))


if __name__ == "__main__":
    main()
