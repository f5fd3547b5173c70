"""What is told of the requests that pass: metrics, the journal, logs, traces."""

from typing import Final, Literal

from pydantic import Field

from scheduler.config.section import Section

# A dashboard cannot show more, and each costs a few series for every class, model and outcome.
LABELLED_TENANTS: Final = 20
# The last seconds of a busy service, the last minutes of a quiet one; a few MB.
JOURNAL_REQUESTS: Final = 4096
# A gigabyte.
MOST_REQUESTS: Final = 1_000_000
# One request in a hundred tells how the usual ones fare.
TRACE_SAMPLE: Final = 0.01


class Logs(Section):
    """What the service writes to standard error."""

    format: Literal["console", "json"] = Field(default="console", description="`console` for people, or `json`.")
    level: Literal["debug", "info", "warning"] = Field(
        default="info", description="`debug` has a line for every request; refusals are sampled from `info` on."
    )


class Tracing(Section):
    """OpenTelemetry spans; needs the extra `tracing`."""

    otlp: str | None = Field(
        default=None, description="HOST:PORT of an OTLP gRPC receiver; none: nothing is traced.", min_length=3
    )
    sample: float = Field(
        default=TRACE_SAMPLE,
        ge=0,
        le=1,
        description="Part of the requests without a `traceparent` that are traced; one with it says so itself.",
    )


class TelemetryConfig(Section):
    """Logs, metrics and traces of the requests."""

    enabled: bool = Field(
        default=True, description="Whether anything is measured: /metrics, the live page, `fairlane explain`, traces."
    )
    tenants: int = Field(
        default=LABELLED_TENANTS, ge=0, description="Tenants with a label of their own in /metrics, at most."
    )
    requests: int = Field(
        default=JOURNAL_REQUESTS,
        ge=0,
        le=MOST_REQUESTS,
        description="The last requests kept for `fairlane explain`; about 1 KB each.",
    )
    logs: Logs = Field(default_factory=Logs, description="What the service writes to standard error.")
    tracing: Tracing = Field(default_factory=Tracing, description="OpenTelemetry spans.")
