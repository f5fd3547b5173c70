"""What `fairlane bench backend` compares, one measurement of each, and what the rounds come to."""

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import psutil
from tritonclient.grpc import service_pb2

from bench.backend.onnxruntime_loop import Bare

OUTSTANDING: Final = 2
LEAD: Final = 6  # answers until the embedded backend has seen the load
TURNS: Final = 4
DTYPES: Final = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}
Feed = Mapping[str, Any]  # input name -> array whose first axis is the batch


class Shape(NamedTuple):
    """What a batch is: rows, and the size of its axes that vary."""

    rows: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one side did. Sides add up.

    Attributes:
        rows: that were inferred.
        wall_s: it took.
        cpu_s: that its processes took.
    """

    rows: int
    wall_s: float
    cpu_s: float

    def __add__(self, other: "Side") -> "Side":
        return Side(rows=self.rows + other.rows, wall_s=self.wall_s + other.wall_s, cpu_s=self.cpu_s + other.cpu_s)

    @property
    def rows_per_s(self) -> float:
        """Of wall time."""
        return self.rows / self.wall_s

    @property
    def cpu_us_per_row(self) -> float:
        """CPU time."""
        return self.cpu_s * 1e6 / self.rows


@dataclass(frozen=True, kw_only=True)
class Round:
    """One measurement of every side."""

    bare: Side
    identity: Side
    triton: Side

    @property
    def ratio(self) -> float:
        """Triton's rows per second to the bare loop's."""
        return self.triton.rows_per_s / self.bare.rows_per_s

    @property
    def backend_ratio(self) -> float:
        """Wall time of loop and identity model to that of the model in Triton."""
        return self.triton.rows_per_s * (1 / self.bare.rows_per_s + 1 / self.identity.rows_per_s)

    @property
    def backend_cpu_ratio(self) -> float:
        """CPU time of loop and identity model to that of the model in Triton; NaN where none was counted."""
        ours = self.triton.cpu_us_per_row
        return (self.bare.cpu_us_per_row + self.identity.cpu_us_per_row) / ours if ours else math.nan


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The sides at one shape, medians over the rounds.

    Attributes:
        rows: of a batch.
        length: of its axes that vary.
        bare, identity, triton: rows per second of wall time.
        ratio: median of the rounds' ratios of rows per second, Triton to the bare loop.
        ratio_low, ratio_high: the smallest and the largest of them.
        backend_ratio: median of the rounds' ratios of a batch's time, loop and identity model one after the other to
            the model in Triton. Beyond 1 where Triton works on the next batch meanwhile.
        backend_cpu_ratio: the same of CPU time, where nothing is hidden by what runs side by side.
        bare_cpu_us, identity_cpu_us, triton_cpu_us: CPU time a row.
        others_cores: cores that processes of others kept busy meanwhile. Beyond OTHERS_CORES_BOUND the
            two sides do not get the same share of the machine, and wall times mean nothing.
    """

    rows: int
    length: int
    bare: float
    identity: float
    triton: float
    ratio: float
    ratio_low: float
    ratio_high: float
    backend_ratio: float
    backend_cpu_ratio: float
    bare_cpu_us: float
    identity_cpu_us: float
    triton_cpu_us: float
    others_cores: float

    @classmethod
    def of(cls, shape: Shape, rounds: Sequence[Round], others_cores: float) -> "Comparison":
        """Summed up from rounds."""

        def median(number: Callable[[Round], float]) -> float:
            return statistics.median(map(number, rounds))

        ratios = [one.ratio for one in rounds]
        return cls(
            rows=shape.rows,
            length=shape.length,
            bare=median(lambda one: one.bare.rows_per_s),
            identity=median(lambda one: one.identity.rows_per_s),
            triton=median(lambda one: one.triton.rows_per_s),
            ratio=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            backend_ratio=median(lambda one: one.backend_ratio),
            backend_cpu_ratio=median(lambda one: one.backend_cpu_ratio),
            bare_cpu_us=median(lambda one: one.bare.cpu_us_per_row),
            identity_cpu_us=median(lambda one: one.identity.cpu_us_per_row),
            triton_cpu_us=median(lambda one: one.triton.cpu_us_per_row),
            others_cores=others_cores,
        )


class Served:
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
        """Infer for about this long, with OUTSTANDING requests at a time; the first LEAD do not count."""
        request = self._request(feed)
        answered, cpu_s, started = 0, 0.0, math.inf

        async def send() -> None:
            nonlocal answered, cpu_s, started
            while time.perf_counter() - started < seconds:
                await self._stub.ModelInfer(request)
                answered += 1
                if answered == LEAD:
                    cpu_s, started = self._cpu_s(), time.perf_counter()

        await asyncio.gather(*(send() for _ in range(OUTSTANDING)))
        wall_s = time.perf_counter() - started
        return Side(rows=(answered - LEAD) * rows_of(feed), wall_s=wall_s, cpu_s=self._cpu_s() - cpu_s)

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

    def __init__(self, bare: Bare, identity: Served, triton: Served, scratch: Path) -> None:
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
