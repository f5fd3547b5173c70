"""Rounds of every side of `fairlane bench backend`, each on a Triton and a loop just started."""

import asyncio
import itertools
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc.aio
import numpy as np
import psutil
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2_grpc

from bench.backend.comparison import Comparison, Round, Shape
from bench.backend.identity import add_identity
from bench.backend.onnxruntime_loop import BareLoop
from bench.backend.sides import DTYPES, ServedModel, Sides
from bench.measuring.other_processes import OtherProcesses
from bench.targets.model_repository import check_built, copy_model
from bench.terminal.progress import RunProgress
from scheduler.cpus import Division
from scheduler.triton.launcher import EmbeddedTriton

ANY_SIZE: Final = ("grpc.max_receive_message_length", -1)
SIDES: Final = 3
START_S: Final = 4.0  # of Triton, roughly


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared.

    Attributes:
        repository: Triton model repository.
        model: name of the model.
        batches: rows.
        sizes: of axes that vary; one is enough for a model that has none.
        seconds: length of each measurement.
        rounds: measurements of each side.
        cpus: whose are whose; None: all share those of this process.
    """

    repository: Path
    model: str
    batches: tuple[int, ...]
    sizes: tuple[int, ...]
    seconds: float
    rounds: int
    cpus: Division | None

    def config(self) -> Any:
        """The model's configuration.

        Raises:
            FileNotFoundError: the model is not built.
        """
        check_built(self.repository, self.model)
        text = (self.repository / self.model / "config.pbtxt").read_text()
        return text_format.Parse(text, model_config_pb2.ModelConfig())

    def lengths(self) -> tuple[int, ...]:
        """The sizes to measure at."""
        varies = any(size < 0 for slot in self.config().input for size in slot.dims)
        return self.sizes if varies else self.sizes[:1]

    def shapes(self) -> list[Shape]:
        """Every length with every batch size."""
        return [Shape(rows, length) for length in self.lengths() for rows in self.batches]

    def round_s(self) -> float:
        """About how long one round at one length takes."""
        return START_S + 1.25 * self.seconds * SIDES * len(self.batches)


class Measured(NamedTuple):
    """A round at one shape, and the cores that others kept busy meanwhile."""

    round: Round
    others_cores: float


def make_feed(config: Any, rows: int, length: int) -> dict[str, Any]:
    """Small numbers for every input of a configuration; an axis that varies has `length`."""
    random = np.random.default_rng(1)
    feed = {}
    for slot in config.input:
        kind = model_config_pb2.DataType.Name(slot.data_type).removeprefix("TYPE_")
        shape = [rows, *(length if size < 0 else size for size in slot.dims)]
        # Ones for a mask, small ids for tokens, and the same for pixels.
        low, high = (1, 2) if "mask" in slot.name else (1, 1000)
        feed[slot.name] = random.integers(low, high, shape).astype(DTYPES[kind])
    return feed


def prepare(plan: Plan, scratch: Path, length: int) -> tuple[Any, BareLoop, str]:
    """Copy the model to a repository of its own, with its identity model.

    Returns:
        The model's configuration, the loop on the version that is served, and the identity model's name.
    """
    copy_model(plan.repository, plan.model, scratch)
    config = plan.config()
    threads = int(config.parameters["intra_op_thread_count"].string_value or 1)
    served = max((scratch / plan.model).glob("[0-9]*"), key=lambda path: int(path.name))
    cpus = os.sched_getaffinity(0) if plan.cpus is None else plan.cpus.triton.models
    return config, BareLoop(served / "model.onnx", threads, cpus), add_identity(scratch, config, length)


async def compare(plan: Plan, progress: RunProgress) -> list[Comparison]:
    """Measure every side at each length and batch size, in turn, each round on processes of its own.

    Raises:
        BareLoopError: the loop cannot run the model.
    """
    measured: dict[Shape, list[Measured]] = {shape: [] for shape in plan.shapes()}
    for number, length in itertools.product(range(plan.rounds), plan.lengths()):
        async with progress.step(f"round {number + 1} of {plan.rounds}, length {length}", plan.round_s()):
            for shape, one in (await measure_round(plan, length)).items():
                measured[shape].append(one)
    return [
        Comparison.of(shape, [one.round for one in ones], statistics.fmean(one.others_cores for one in ones))
        for shape, ones in measured.items()
    ]


async def measure_round(plan: Plan, length: int) -> dict[Shape, Measured]:
    """All sides at every batch size, on a Triton and a loop just started, after a short run that does not count."""
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as scratch:
        models = Path(scratch, "models")
        config, bare, identity = prepare(plan, models, length)
        triton = EmbeddedTriton(models, cpus=None if plan.cpus is None else plan.cpus.triton)
        try:
            address = await triton.start()
            assert triton.pid is not None
            async with bare, grpc.aio.insecure_channel(address.grpc, options=[ANY_SIZE]) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                server = psutil.Process(triton.pid)
                sides = Sides(
                    bare, ServedModel(stub, server, identity), ServedModel(stub, server, plan.model), Path(scratch)
                )
                found = {}
                for rows in plan.batches:
                    feed = make_feed(config, rows, length)
                    await asyncio.to_thread(sides.save, feed)
                    await sides.measure(feed, plan.seconds / 4)
                    others = OtherProcesses()
                    one = await sides.measure(feed, plan.seconds)
                    found[Shape(rows, length)] = Measured(one, others.cores())
                return found
        finally:
            await triton.stop(grace_s=0.0)
