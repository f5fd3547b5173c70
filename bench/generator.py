"""The generator process: `python -m bench.generator`, one stream each.

Reads the job (a `Job` as one line of JSON) on stdin, connects, builds its request, prints `ready`, reads one more
line: the moment to start, in seconds of CLOCK_MONOTONIC, which all processes of a machine share. It then runs the
stream, writes the samples to the job's npz file, and ends. Interactive and background traffic live in different
processes, so that the answers to a flood do not delay the clock reading of an interactive answer.
"""

import asyncio
import gc
import sys
import time

import grpc.aio

from bench.arrivals import poisson_offsets_s
from bench.loop import closed_loop, open_loop
from bench.samples import Samples
from bench.sender import CHANNEL_OPTIONS, Sender
from bench.stream import Job, Stream


async def run_stream(sender: Sender, stream: Stream, *, start_s: float, seed: int) -> Samples:
    """Run one stream from the monotonic time `start_s`, wait its grace, and give up on what is still outstanding."""
    sender.begin(start_s)
    await asyncio.sleep(max(0.0, -sender.now_s()))
    cpu_s = time.process_time()
    await _offer(sender, stream, seed)
    await asyncio.sleep(max(0.0, stream.duration_s - sender.now_s()))
    if sender.pending:
        await asyncio.wait(set(sender.pending), timeout=stream.grace_s)
    cpu_s = time.process_time() - cpu_s
    samples = sender.recorder.freeze(duration_s=stream.duration_s, end_s=sender.now_s(), cpu_s=cpu_s)
    await _give_up(sender)
    return samples


async def _offer(sender: Sender, stream: Stream, seed: int) -> None:
    if stream.rate_per_s:
        offsets_s = poisson_offsets_s(stream.rate_per_s, stream.duration_s, seed=seed, stream=stream.name)
        await open_loop(sender, offsets_s)
        return
    try:
        limit_s = stream.duration_s + stream.grace_s - sender.now_s()
        await asyncio.wait_for(closed_loop(sender, stream.outstanding, stream.duration_s), limit_s)
    except TimeoutError:
        pass  # what the server still owes stays unanswered in the samples


async def _give_up(sender: Sender) -> None:
    pending = list(sender.pending)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


async def generate(job: Job) -> Samples:
    """Connect, tell the parent, wait for its start line, run."""
    async with grpc.aio.insecure_channel(job.target, options=CHANNEL_OPTIONS) as channel:
        sender = await Sender.prepare(channel, job.stream, seed=job.seed)
        print("ready", flush=True)
        start_s = float(await asyncio.to_thread(sys.stdin.readline))
        return await run_stream(sender, job.stream, start_s=start_s, seed=job.seed)


def main() -> None:
    """Entry point of the process."""
    job = Job.from_json(sys.stdin.readline())
    # A full collection with tens of thousands of calls alive stops the loop for 100 ms and more.
    gc.freeze()
    gc.disable()
    asyncio.run(generate(job)).save(job.out)


if __name__ == "__main__":
    main()
