"""One stream at one server, by a generator process of its own."""

from pathlib import Path

from bench.load.generator_process import run_jobs
from bench.load.job import Job
from bench.load.loops import SATURATING_OUTSTANDING
from bench.load.stream import Stream
from bench.measuring.pool import StreamPool, Totals


async def run_single_stream(
    address: str, stream: Stream, *, rate_per_s: float | None, seconds: float, seed: int, out: Path
) -> Totals:
    """Open loop at a rate; closed loop where there is none.

    Args:
        address: HOST:PORT of the server.
        stream: what a request is, and whose.
        rate_per_s: mean arrivals per second.
        seconds: of load.
        seed: of arrivals and request values.
        out: file for the recording.

    Raises:
        GeneratorError: the generator could not connect or failed.
    """
    load = {"rate_per_s": rate_per_s, "outstanding": None if rate_per_s else SATURATING_OUTSTANDING}
    job = Job(
        target=address,
        name=stream.tenant,
        stream=stream.model_copy(update=load),
        rate_per_s=rate_per_s or 0.0,
        duration_s=seconds,
        seed=seed,
        triton_priority=None,
        out=out,
    )
    pool = StreamPool([(await run_jobs([job]))[job.name]], float("nan"))
    return pool.totals(pool.everything)
