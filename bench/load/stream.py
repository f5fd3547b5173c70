"""One stream of requests, and the job a generator process is given."""

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from bench.load.arrivals import Arrivals, Level, Poisson
from bench.load.request_mix import Mix

# A safety bound, not a part of the load: 50,000 calls outstanding are about 1 GiB of client memory. An arrival
# beyond it is not sent, is counted as UNSENT with a censored latency, and makes the run invalid.
MAX_OUTSTANDING: Final = 50_000
# Longer than any answer of a server that keeps up, short enough not to wait for a queue that never drains.
GRACE_S: Final = 2.0
# Latency counts from the due time, so a late generator makes the server look worse, never better. Beyond a fifth of the
# mean gap of a stream of 20/s (50 ms) its arrivals are no longer the process asked for.
LATENESS_P99_BOUND_MS: Final = 10.0
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]


class Shape(BaseModel):
    """What one request costs: its model, its rows, and the size of the model's open dimensions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Name of the model.")
    rows: int = Field(default=1, gt=0, description="Rows of one request.")
    seq: int = Field(default=32, gt=0, description="Size of every open dimension but the batch.")
    integers_below: int | None = Field(
        default=None, gt=0, description="Integers are drawn from 0 up to this; none: like token ids, 1000 to 20000."
    )


class Stream(Shape):
    """A stream of requests, alike but for its mix: open loop at a rate, or closed loop with a number outstanding."""

    traffic_class: str = Field(alias="class", description="Priority class, as in `x-priority`.")
    tenant: str = Field(description="As in `x-tenant-id`.")
    rate_per_s: float | None = Field(default=None, gt=0, description="Open loop: mean arrivals per second.")
    of_capacity: float | None = Field(
        default=None, gt=0, description="Open loop: a multiple of what Triton alone answers of these requests."
    )
    outstanding: int | None = Field(default=None, gt=0, description="Closed loop: requests always with the server.")
    arrivals: Arrivals = Field(default=Poisson(), description="poisson, bursty, diurnal or replay.")
    profile: list[Level] = Field(default=[], description="Ramps and steps over the phase.")
    deadline_ms: float | None = Field(default=None, gt=0, description="gRPC deadline of each request.")
    mix: Mix | None = Field(
        default=None, description="In what its requests differ; `of_capacity` counts them as if they did not."
    )
    max_outstanding: int = Field(default=MAX_OUTSTANDING, gt=0, description="Safety bound of the generator.")
    grace_s: float = Field(default=GRACE_S, ge=0, description="Wait for answers after the phase.")
    lateness_p99_bound_ms: float | None = Field(
        default=LATENESS_P99_BOUND_MS,
        gt=0,
        description="The run is invalid beyond it; none: only the rate matters, and the generator is niced.",
    )
    tick_ms: float | None = Field(
        default=None, gt=0, description="Open loop: what is due within a tick leaves at its end, in one write."
    )

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        loads = [self.rate_per_s, self.of_capacity, self.outstanding]
        if len([load for load in loads if load is not None]) != 1:
            raise ValueError("set exactly one of rate_per_s, of_capacity (open loop) and outstanding (closed loop)")
        if [point.at for point in self.profile] != sorted(point.at for point in self.profile):
            raise ValueError("the points of a profile must be in order of `at`")
        return self

    @property
    def shape(self) -> Shape:
        """What decides the capacity for these requests."""
        return Shape(model=self.model, rows=self.rows, seq=self.seq, integers_below=self.integers_below)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Request metadata that names the class and the tenant."""
        return (("x-priority", self.traffic_class), ("x-tenant-id", self.tenant))
