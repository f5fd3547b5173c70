"""What `fairlane bench backend` compares, one measurement of each, and what the rounds come to."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from tritonclient.grpc import service_pb2

from bench.backend.comparison import Round, Side
from bench.backend.onnxruntime_loop import BareLoop

OUTSTANDING: Final = 2
WARMUP_ANSWERS: Final = 6  # answers until the embedded backend has seen the load
TURNS: Final = 4
DTYPES: Final = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}
Feed = Mapping[str, Any]  # input name -> array whose first axis is the batch


class ServedModel:
    """The model in Triton.

    Args:
        stub: of its gRPC service.
        server: tritonserver.
        name: of the model.
    """

    def __init__(self, stub: Any, server: psutil.Process, name: str) -> None:
        self._stub = stub
        self._server = server
        self._name = name

    async def run(self, feed: Feed, seconds: float) -> Side:
        """Infer for about this long, with OUTSTANDING requests at a time; the first WARMUP_ANSWERS do not count."""
        request = self._request(feed)
        answered, cpu_s, started = 0, 0.0, math.inf

        async def send() -> None:
            nonlocal answered, cpu_s, started
            while time.perf_counter() - started < seconds:
                await self._stub.ModelInfer(request)
                answered += 1
                if answered == WARMUP_ANSWERS:
                    cpu_s, started = self._cpu_s(), time.perf_counter()

        await asyncio.gather(*(send() for _ in range(OUTSTANDING)))
        wall_s = time.perf_counter() - started
        return Side(rows=(answered - WARMUP_ANSWERS) * rows_of(feed), wall_s=wall_s, cpu_s=self._cpu_s() - cpu_s)

    def _request(self, feed: Feed) -> Any:
        request = service_pb2.ModelInferRequest(model_name=self._name)
        for key, value in feed.items():
            datatype = next(kind for kind, dtype in DTYPES.items() if value.dtype == dtype)
            request.inputs.add(name=key, datatype=datatype, shape=value.shape)
            request.raw_input_contents.append(value.tobytes())
        return request

    def _cpu_s(self) -> float:
        times = [each.cpu_times() for each in (self._server, *self._server.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))


class Sides:
    """What is compared.

    Args:
        bare: the loop.
        identity: the identity model in Triton.
        triton: the model in Triton.
        scratch: a folder for the loop's batches.
    """

    def __init__(self, bare: BareLoop, identity: ServedModel, triton: ServedModel, scratch: Path) -> None:
        self._bare = bare
        self._identity = identity
        self._triton = triton
        self._scratch = scratch

    def save(self, feed: Feed) -> None:
        """Write a batch where the loop reads it."""
        np.savez(self._path(feed), **feed)

    async def measure(self, feed: Feed, seconds: float) -> Round:
        """Measure each for about this long, in TURNS turns: a machine's speed changes within seconds."""
        runs: list[tuple[str, Callable[[Feed, float], Awaitable[Side]]]] = [
            ("bare", self._run_bare),
            ("identity", self._identity.run),
            ("triton", self._triton.run),
        ]
        sums: dict[str, Side] = {}
        for turn in range(TURNS):
            start = turn % len(runs)
            for name, run in (*runs[start:], *runs[:start]):
                side = await run(feed, seconds / TURNS)
                sums[name] = sums[name] + side if name in sums else side
        return Round(**sums)

    async def _run_bare(self, feed: Feed, seconds: float) -> Side:
        measured = await self._bare.run(self._path(feed), seconds)
        return Side(rows=int(measured["runs"]) * rows_of(feed), wall_s=measured["wall_s"], cpu_s=measured["cpu_s"])

    def _path(self, feed: Feed) -> Path:
        return self._scratch / f"{rows_of(feed)}.npz"


def rows_of(feed: Feed) -> int:
    """Rows of a batch."""
    return len(next(iter(feed.values())))
