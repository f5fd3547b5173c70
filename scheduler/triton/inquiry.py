"""What a Triton says of a model when a batch of it is overdue (core/backends/patience.py)."""

from typing import Any, Final

import grpc
from tritonclient.grpc import service_pb2

from scheduler.core.backends.patience import Statement
from scheduler.triton.answer import parsed

# A healthy Triton answers in a millisecond; one that loads a model may need seconds.
TIMEOUT_S: Final = 5.0
# A model in one of these states has not dropped what it was given: Triton finishes that before it unloads.
AT_WORK: Final = frozenset({"READY", "LOADING", "UNLOADING"})


async def inquire(stub: Any, model: str) -> Statement:
    """Ask whether the server lives, whether it has the model, and what it has done of it.

    Args:
        stub: a `GRPCInferenceServiceStub`.
        model: its name.
    """
    try:
        await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=TIMEOUT_S)
        index = parsed(await stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=TIMEOUT_S))
    except grpc.aio.AioRpcError:
        return Statement(live=False)
    states = {entry.state for entry in index.models if entry.name == model}
    if not states & AT_WORK:
        return Statement(live=True)
    return Statement(live=True, served=True, inferences=await _inferences(stub, model))


async def _inferences(stub: Any, model: str) -> int:
    """How many inferences have ended, well or not; 0 where the server does not tell."""
    try:
        asked = service_pb2.ModelStatisticsRequest(name=model)
        told = parsed(await stub.ModelStatistics(asked, timeout=TIMEOUT_S))
    except grpc.aio.AioRpcError:
        return 0
    return sum(each.inference_count + each.inference_stats.fail.count for each in told.model_stats)
