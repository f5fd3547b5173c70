"""What one generator process is told."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from bench.load.stream import Stream


class Job(BaseModel):
    """What one generator process is told.

    Attributes:
        target: HOST:PORT.
        rate_per_s: of an open loop, with multiples of the capacity resolved; 0 for a closed loop.
        triton_priority: Triton's own level (1 = most important), sent where set.
        out: file for its recording.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    name: str
    stream: Stream
    rate_per_s: float
    duration_s: float
    seed: int
    triton_priority: int | None
    out: Path

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return self.model_dump_json(by_alias=True)
