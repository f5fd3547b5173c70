"""One stream of requests and the job a generator process is given."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

# A safety bound, not a part of the load: 50,000 calls outstanding are about 1 GiB of client memory. An arrival
# beyond it is not sent, is counted as UNSENT with a censored latency, and marks the run invalid.
MAX_OUTSTANDING = 50_000

# Longer than any answer of a server that keeps up, short enough not to wait for a queue that never drains.
GRACE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream of identical requests: open loop where `rate_per_s` is set, closed loop where `outstanding` is.

    Raises:
        ValueError: both or neither of the two are set, or a quantity is not positive.
    """

    name: str
    model: str
    traffic_class: str
    tenant: str
    duration_s: float
    rate_per_s: float = 0.0
    outstanding: int = 0
    rows: int = 1
    seq: int = 32
    triton_priority: int | None = None
    deadline_ms: float | None = None
    max_outstanding: int = MAX_OUTSTANDING
    grace_s: float = GRACE_S

    def __post_init__(self) -> None:
        if (self.rate_per_s > 0) == (self.outstanding > 0):
            raise ValueError(f"stream {self.name}: set either rate_per_s (open loop) or outstanding (closed loop)")
        if min(self.duration_s, self.rows, self.seq, self.max_outstanding) <= 0:
            raise ValueError(f"stream {self.name}: duration_s, rows, seq and max_outstanding must be positive")

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Request metadata that names the class and the tenant."""
        return (("x-priority", self.traffic_class), ("x-tenant-id", self.tenant))


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one generator process is told: a stream, where to send it, the seed, and the file for its samples (npz)."""

    target: str
    stream: Stream
    seed: int
    out: Path

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps({**asdict(self), "out": str(self.out)})

    @classmethod
    def from_json(cls, line: str) -> "Job":
        """The job that `to_json` wrote."""
        fields = json.loads(line)
        return cls(
            target=fields["target"], stream=Stream(**fields["stream"]), seed=fields["seed"], out=Path(fields["out"])
        )
