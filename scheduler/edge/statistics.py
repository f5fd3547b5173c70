"""ModelStatistics over all backends, with the time that requests waited in Fairlane."""

from collections.abc import Iterable
from typing import Any, Final

from tritonclient.grpc import service_pb2

NANOSECONDS: Final = 1e9
# Of every model and version that can be asked for; unknown ones are never counted.
MAX_MODELS: Final = 4096


class QueueTimes:
    """Requests that were served, and the seconds that they had waited before, by model and version."""

    def __init__(self) -> None:
        self._by_model: dict[tuple[str, str], list[float]] = {}

    def add(self, model: str, version: str, waited_s: float) -> None:
        """Count one request."""
        entry = self._by_model.get((model, version))
        if entry is None:
            if len(self._by_model) >= MAX_MODELS:
                return
            entry = self._by_model[model, version] = [0, 0.0]
        entry[0] += 1
        entry[1] += waited_s

    def add_to(self, statistics: Any) -> None:
        """Add what was counted to the `queue` of a `ModelStatistics`."""
        count, waited_s = self._by_model.get((statistics.name, statistics.version), (0, 0.0))
        statistics.inference_stats.queue.count += int(count)
        statistics.inference_stats.queue.ns += round(waited_s * NANOSECONDS)


def summed(answers: Iterable[Any], queue_times: QueueTimes) -> Any:
    """One `ModelStatisticsResponse` of several: counts and times added, the latest of the last inferences."""
    total = service_pb2.ModelStatisticsResponse()
    by_model: dict[tuple[str, str], Any] = {}
    for answer in answers:
        for statistics in answer.model_stats:
            key = (statistics.name, statistics.version)
            if key in by_model:
                _add(by_model[key], statistics)
            else:
                by_model[key] = total.model_stats.add()
                by_model[key].CopyFrom(statistics)
    for statistics in by_model.values():
        queue_times.add_to(statistics)
    return total


def _add(into: Any, other: Any) -> None:
    """Add the numbers of one statistics message to another's, field by field."""
    last_inference = max(getattr(into, "last_inference", 0), getattr(other, "last_inference", 0))
    for field, value in other.ListFields():
        if field.name == "batch_stats":
            _add_batches(into.batch_stats, value)
        elif field.name == "response_stats":
            for key, each in value.items():
                _add(into.response_stats[key], each)
        elif field.name == "memory_usage":
            into.memory_usage.extend(value)
        elif field.type == field.TYPE_MESSAGE:
            _add(getattr(into, field.name), value)
        elif field.type == field.TYPE_UINT64:
            setattr(into, field.name, getattr(into, field.name) + value)
    if last_inference:
        into.last_inference = last_inference


def _add_batches(into: Any, others: Any) -> None:
    by_size = {batch.batch_size: batch for batch in into}
    for other in others:
        batch = by_size.get(other.batch_size)
        if batch is None:
            into.add().CopyFrom(other)
            continue
        for name in ("compute_input", "compute_infer", "compute_output"):
            _add(getattr(batch, name), getattr(other, name))
