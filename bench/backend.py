"""`fairlane bench backend`: rows per second of a model in Triton, against a bare ONNX Runtime loop on the same batches.

Both run one instance with the model's own number of threads on the same file, in turn and repeatedly, so that what else
the machine does strikes both alike. Triton gets two batches at a time, as Fairlane gives it: one runs, one lies ready.
"""

import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from google.protobuf import text_format
from rich.console import Console
from rich.table import Table
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from bench.repository import copy_model
from scheduler.triton.launcher import EmbeddedTriton

ROOT: Final = Path(__file__).parent.parent
OUTSTANDING: Final = 2
ASKED: Final = 0.95  # of the bare loop
DTYPES: Final = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}


@dataclass(frozen=True)
class Comparison:
    """Rows per second at one batch size, medians over the rounds; `ratio` is the median of the rounds' ratios."""

    rows: int
    bare: float
    triton: float
    ratio: float


class Bare:
    """The loop: the same file, in this process, called back to back."""

    def __init__(self, model: Path, threads: int) -> None:
        import onnxruntime as ort  # noqa: PLC0415  (needed only here, and slow to import)

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def rows_per_s(self, feed: dict[str, Any], seconds: float) -> float:
        """Throughput over about this long."""
        started, runs = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - started) < seconds:
            self._session.run(None, feed)
            runs += 1
        return runs * len(next(iter(feed.values()))) / elapsed


async def triton_rows_per_s(stub: Any, name: str, feed: dict[str, Any], seconds: float) -> float:
    """Throughput of Triton over about this long, with OUTSTANDING requests at a time."""
    request = service_pb2.ModelInferRequest(model_name=name)
    for key, value in feed.items():
        datatype = next(kind for kind, dtype in DTYPES.items() if value.dtype == dtype)
        request.inputs.add(name=key, datatype=datatype, shape=value.shape)
        request.raw_input_contents.append(value.tobytes())
    started, runs = time.perf_counter(), 0

    async def send() -> None:
        nonlocal runs
        while time.perf_counter() - started < seconds:
            await stub.ModelInfer(request)
            runs += 1

    await asyncio.gather(*(send() for _ in range(OUTSTANDING)))
    return runs * len(next(iter(feed.values()))) / (time.perf_counter() - started)


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


def prepare(repository: Path, name: str, scratch: Path) -> tuple[Any, Bare]:
    """Copy the model to a repository of its own; its configuration, and the loop on the version that is served."""
    copy_model(repository, name, scratch)
    config = text_format.Parse((scratch / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    threads = int(config.parameters["intra_op_thread_count"].string_value or 1)
    served = max((scratch / name).glob("[0-9]*"), key=lambda path: int(path.name))
    return config, Bare(served / "model.onnx", threads)


async def compare(
    repository: Path, name: str, batches: tuple[int, ...], seconds: float, rounds: int, length: int
) -> list[Comparison]:
    """Measure both sides at each batch size, in turn."""
    import grpc  # noqa: PLC0415

    found = []
    with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as scratch:
        config, bare = prepare(repository, name, Path(scratch))
        triton = EmbeddedTriton(Path(scratch))
        try:
            address = await triton.start()
            async with grpc.aio.insecure_channel(address.grpc) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                for rows in batches:
                    feed = make_feed(config, rows, length)
                    bare.rows_per_s(feed, seconds / 4)
                    await triton_rows_per_s(stub, name, feed, seconds / 4)
                    pairs = [
                        (bare.rows_per_s(feed, seconds), await triton_rows_per_s(stub, name, feed, seconds))
                        for _ in range(rounds)
                    ]
                    found.append(
                        Comparison(
                            rows=rows,
                            bare=statistics.median(pair[0] for pair in pairs),
                            triton=statistics.median(pair[1] for pair in pairs),
                            ratio=statistics.median(pair[1] / pair[0] for pair in pairs),
                        )
                    )
        finally:
            await triton.stop(grace_s=0.0)
    return found


@click.command()
@click.option("--model", default="minilm", show_default=True)
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 8, 32), show_default=True, help="Rows.")
@click.option("--length", default=32, show_default=True, help="Size of axes that vary.")
@click.option("--seconds", default=3.0, show_default=True, help="Length of each measurement.")
@click.option("--rounds", default=5, show_default=True, help="Measurements of each side, in turn.")
@click.option("--model-repository", type=click.Path(path_type=Path, exists=True), default=ROOT / "model_repository")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def backend(
    model: str,
    batches: tuple[int, ...],
    length: int,
    seconds: float,
    rounds: int,
    model_repository: Path,
    as_json: bool,
) -> None:
    """Rows per second in Triton with the embedded backend, against a bare ONNX Runtime loop."""
    found = asyncio.run(compare(model_repository, model, batches, seconds, rounds, length))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    table = Table(title=f"{model}: rows per second, one instance (asked: a ratio of {ASKED})")
    for column in ("batch", "bare loop", "Triton", "ratio"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(str(one.rows), f"{one.bare:.0f}", f"{one.triton:.0f}", f"{one.ratio:.2f}")
    Console().print(table)
