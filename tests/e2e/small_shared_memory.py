"""Run in a mount namespace of its own: the real Triton, with 32 MB of shared memory, asked for more and then for less.

    python small_shared_memory.py REPOSITORY LOG

Prints a JSON list of what each call came to.
"""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from scheduler.triton.launcher import EmbeddedTriton

CALLERS, CALLS = 4, 4
MANY, FEW = 20_000_000, 100_000
DEADLINE_S = 20.0


def calls(address: str, numbers: int) -> list[str]:
    """Some calls in a row for that many numbers each."""
    came = []
    with InferenceServerClient(address) as client:
        for _ in range(CALLS):
            inputs = [InferInput("x", [1], "FP32"), InferInput("n", [1], "INT64")]
            inputs[0].set_data_from_numpy(np.ones(1, np.float32))
            inputs[1].set_data_from_numpy(np.array([numbers]))
            try:
                answer = client.infer("wide", inputs, client_timeout=DEADLINE_S).as_numpy("y")
                came.append(f"{len(answer)} numbers")
            except InferenceServerException as error:
                came.append(str(error.status()))
    return came


async def serve(repository: Path, log: Path) -> list[str]:
    """What callers get, many at a time, of too much and then of little."""
    triton = EmbeddedTriton(repository, log_path=log)
    address = await triton.start()
    came: list[str] = []
    with ThreadPoolExecutor(CALLERS) as pool:
        for numbers in (MANY, FEW):
            loop = asyncio.get_running_loop()
            found = [loop.run_in_executor(pool, calls, address.grpc, numbers) for _ in range(CALLERS)]
            came += [one for each in await asyncio.gather(*found) for one in each]
    await triton.stop()
    return came


if __name__ == "__main__":
    print(json.dumps(asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2])))))
