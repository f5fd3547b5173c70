"""The bare ONNX Runtime loop, in a process of its own: `python -m bench.backend.onnxruntime_loop MODEL THREADS CPUS`.

So that a gRPC client's threads, and its garbage, are no part of what is measured.

For each line on stdin, {"feed": path of an .npz, "seconds": number}, it runs the model back to back and answers with
a line, {"runs": number, "wall_s": seconds, "cpu_s": seconds}. It ends with its stdin.
"""

import json
import os
import sys
import time
from collections.abc import Set
from pathlib import Path
from typing import Any

import numpy as np

from bench.processes.piped_process import PipedProcess


class BareLoopError(RuntimeError):
    """The loop's process failed; the message holds the end of what it wrote to stderr."""


class BareLoop(PipedProcess):
    """The process and its loop. An async context: it is gone when the context is left.

    Args:
        model: its file.
        threads: within one run.
        cpus: by number, that the process may use.
    """

    def __init__(self, model: Path, threads: int, cpus: Set[int]) -> None:
        numbers = ",".join(map(str, sorted(cpus)))
        super().__init__("bench.backend.onnxruntime_loop", str(model), str(threads), numbers)

    async def run(self, feed: Path, seconds: float) -> dict[str, float]:
        """Run the loop for about this long on the arrays of an .npz; `runs`, `wall_s` and `cpu_s` of it.

        Raises:
            BareLoopError: the process failed.
        """
        self.tell(json.dumps({"feed": str(feed), "seconds": seconds}))
        line = await self.answer()
        if not line:
            raise BareLoopError(f"the bare loop failed:\n{await self.stderr_tail()}")
        measured: dict[str, float] = json.loads(line)
        return measured


def loop(session: Any, feed: dict[str, Any], seconds: float) -> dict[str, float]:
    """Call the session back to back for about this long."""
    runs, cpu_s, started = 0, time.process_time(), time.perf_counter()
    while (wall_s := time.perf_counter() - started) < seconds:
        session.run(None, feed)
        runs += 1
    return {"runs": runs, "wall_s": wall_s, "cpu_s": time.process_time() - cpu_s}


def main() -> None:
    """Answer lines until there are no more."""
    import onnxruntime as ort  # noqa: PLC0415  (needed only here, and slow to import)

    model, threads, cpus = sys.argv[1:]
    os.sched_setaffinity(0, map(int, cpus.split(",")))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = int(threads), 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for line in sys.stdin:
        order = json.loads(line)
        with np.load(order["feed"]) as arrays:
            feed = dict(arrays)
        print(json.dumps(loop(session, feed, order["seconds"])), flush=True)


if __name__ == "__main__":
    main()
