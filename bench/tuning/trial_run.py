"""One stream offered to one server by a generator process, and what came of it."""

import math
from pathlib import Path

from bench.load.generator_process import run_jobs
from bench.load.stream import LATENESS_P99_BOUND_MS, Job, Stream
from bench.measuring.metric import STREAM_METRICS
from bench.measuring.pool import StreamPool, Totals
from bench.scenarios.result import LATENESS_SHARE_BOUND
from bench.scenarios.runner import OUTSTANDING
from bench.scenarios.scenario import OTHERS_CORES_BOUND
from bench.tuning.knee import Trial


async def offer(
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
    load = {"rate_per_s": rate_per_s, "outstanding": None if rate_per_s else OUTSTANDING}
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


def trial_of(rate_per_s: float, totals: Totals, *, others_cores: float = math.nan) -> Trial:
    """What was asked for and what came of it, as the knee's search wants it."""
    p99_ms, late_ms = (STREAM_METRICS[name](totals) for name in ("p99_ms", "lateness_p99_ms"))
    fault = ""
    if not (late_ms <= LATENESS_P99_BOUND_MS or late_ms <= LATENESS_SHARE_BOUND * p99_ms):
        fault = "the generator fell behind"
    elif others_cores > OTHERS_CORES_BOUND:
        fault = f"others kept {others_cores:.1f} cores busy"
    return Trial(
        rate_per_s=rate_per_s,
        offered_per_s=STREAM_METRICS["offered_per_s"](totals),
        p99_ms=p99_ms,
        ok_share=totals.counts["ok"] / max(1.0, totals.counts["arrived"]),
        late_ms=late_ms,
        others_cores=others_cores,
        fault=fault,
    )
