"""How many rows Triton ran at a time, from its own statistics before and after a load."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bench.targets.target import TargetError

TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class BatchStatistics:
    """Rows inferred and runs of the model, and runs by their rows; since its server started, or between two moments."""

    rows: int
    runs: int
    sizes: Counter[int] = field(default_factory=Counter)

    def since(self, before: "BatchStatistics") -> "BatchStatistics":
        """What came between."""
        return BatchStatistics(
            rows=self.rows - before.rows, runs=self.runs - before.runs, sizes=self.sizes - before.sizes
        )


async def fetch_batch_statistics(address: str, models: list[str]) -> dict[str, BatchStatistics]:
    """The batches of each model so far, at a server on HOST:PORT.

    Raises:
        TargetError: the server does not answer.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        found = {}
        for model in models:
            try:
                request = service_pb2.ModelStatisticsRequest(name=model)
                answer = await stub.ModelStatistics(request, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                why = f"{error.code().name}: {error.details()}"
                raise TargetError(f"{address} does not tell its statistics of {model}: {why}") from None
            rows = sum(version.inference_count for version in answer.model_stats)
            runs = sum(version.execution_count for version in answer.model_stats)
            sizes: Counter[int] = Counter()
            for each in (batch for version in answer.model_stats for batch in version.batch_stats):
                sizes[each.batch_size] += each.compute_infer.count
            found[model] = BatchStatistics(rows=rows, runs=runs, sizes=sizes)
    return found
