"""Requests of one stream that differ: in rows, in length, in the time that they have."""

import zlib
from typing import Annotated, Final, NamedTuple, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

# Drawn before the run, and sent in turn: more than a phase of low rate has requests.
DRAWN: Final = 4096

Range = Annotated[tuple[float, float], Field(description="From and to.")]


class Request(NamedTuple):
    """What one request is, and how long it has: `deadline_ms` None: as long as it takes."""

    rows: int
    seq: int
    deadline_ms: float | None


class Mix(BaseModel):
    """Evenly drawn, in place of what the stream says; what is not set is as there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[int, ...] = Field(default=(), description="One of these.")
    seq: tuple[int, int] | None = Field(default=None, description="From the first to the second.")
    deadline_ms: Range | None = Field(default=None, description="From the first to the second.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(rows < 1 for rows in self.rows):
            raise ValueError("rows: expected at least 1 in each request")
        for name, least in (("seq", 1), ("deadline_ms", 0)):
            given = getattr(self, name)
            if given is not None and not least <= given[0] <= given[1]:
                raise ValueError(f"{name}: expected two numbers from {least} on in order")
        return self

    def draw(self, usual: Request, seed: int, stream: str) -> list[Request]:
        """DRAWN requests; those of one seed and stream are the same.

        Args:
            usual: what the stream says.
            seed: of the run.
            stream: its name.
        """
        random = np.random.default_rng([seed, zlib.crc32(stream.encode())])
        shortest, longest = self.seq or (usual.seq, usual.seq)
        rows = random.choice(self.rows or (usual.rows,), size=DRAWN)
        lengths = random.integers(shortest, longest, size=DRAWN, endpoint=True)
        deadlines: list[float | None] = [usual.deadline_ms] * DRAWN
        if self.deadline_ms is not None:
            deadlines = list(random.uniform(*self.deadline_ms, size=DRAWN).tolist())
        return [Request(*each) for each in zip(rows.tolist(), lengths.tolist(), deadlines, strict=True)]
