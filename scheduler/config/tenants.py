"""What tenants may ask for and hold, and how they prove who they are."""

import re
from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import Field, field_validator, model_validator

from scheduler.config.section import Section
from scheduler.config.weight import Weight
from scheduler.core.rate import Rate, RateUnit
from scheduler.core.settings import Cap, TenantSettings

# One tenant with all its places in flight leaves room for others on any model of ours.
TENANT_IN_FLIGHT: Final = 64
TENANT_QUEUED: Final = 4096
# Half of what all may queue: no tenant can fill the queue with a few large requests.
TENANT_QUEUE_BYTES: Final = 128 * 1024 * 1024
# The settings of every tenant without an entry, and the tenant of whoever names none.
DEFAULT_TENANT: Final = "default"
UNITS: Final = {"requests": RateUnit.REQUESTS, "rows": RateUnit.ROWS, "seconds": RateUnit.SECONDS}
_KEY: Final = re.compile(r"sha256:[0-9a-f]{64}")


class CapConfig(Section):
    """What one tenant may have at Triton of one model."""

    max_in_flight: int | None = Field(
        default=None, gt=0, description="Requests for the model at Triton at a time, at most."
    )
    max_rows_in_flight: int | None = Field(
        default=None, gt=0, description="Rows for the model at Triton at a time, at most."
    )


class RateConfig(Section):
    """A rate, in one unit."""

    requests: float | None = Field(default=None, gt=0, description="Requests a second.")
    rows: float | None = Field(
        default=None, gt=0, description="Rows a second; a request for a model without a batch dimension is one row."
    )
    seconds: float | None = Field(
        default=None,
        gt=0,
        description="Seconds of an instance's time a second: 0.5 is half an instance. A request counts for its rows' "
        "part of its batch: as expected when it arrives, as it was when it is answered.",
    )

    @model_validator(mode="after")
    def _in_one_unit(self) -> Self:
        if sum(getattr(self, name) is not None for name in UNITS) != 1:
            raise ValueError("expected a number of requests, or exactly one of requests, rows and seconds")
        return self

    def core(self, burst: float | None) -> Rate:
        """The rate as the core reads it; `burst` None: what comes in a second."""
        name = next(name for name in UNITS if getattr(self, name) is not None)
        per_s, unit = float(getattr(self, name)), UNITS[name]
        if burst is None:
            burst = per_s if unit is RateUnit.SECONDS else max(1.0, per_s)
            burst = float(int(burst)) if unit is RateUnit.REQUESTS else burst
        return Rate(unit, per_s, burst)


class TenantConfig(Section):
    """What one tenant may hold; `default` holds for every tenant without an entry."""

    weight: Weight = Field(default=1, description="Share of its class relative to the other tenants.")
    max_in_flight: int = Field(default=TENANT_IN_FLIGHT, gt=0, description="Requests at Triton at a time, at most.")
    max_rows_in_flight: int | None = Field(
        default=None,
        gt=0,
        description="Rows at Triton at a time, at most; a request with more rows is refused for good.",
    )
    model_caps: dict[str, CapConfig] = Field(
        default_factory=dict, description="Further caps on single models, by name; both hold."
    )
    max_queued: int = Field(default=TENANT_QUEUED, gt=0, description="Waiting requests, at most.")
    max_queue_bytes: int | None = Field(
        default=TENANT_QUEUE_BYTES,
        gt=0,
        description="Bytes of its waiting tensors, at most; not set: no less than `limits.message_bytes`.",
    )
    rate_per_s: RateConfig | None = Field(
        default=None,
        description="What is let in a second, on average: a number of requests, or `{rows: N}` or `{seconds: S}`; "
        "not set: any number.",
    )
    burst: float | None = Field(
        default=None,
        gt=0,
        description="As much of the same is let in at once after a silence; not set: what `rate_per_s` lets in a "
        "second, and no less than one request or row.",
    )

    @field_validator("rate_per_s", mode="before")
    @classmethod
    def _plain_number(cls, given: Any) -> Any:
        """A rate that is no mapping is one of requests."""
        return given if given is None or isinstance(given, Mapping | RateConfig) else {"requests": given}

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst is not None and self.rate_per_s is None:
            raise ValueError("burst: expected rate_per_s beside it")
        return self

    classes: tuple[str, ...] | None = Field(default=None, description="Classes that it may use; not set: all.")
    models: tuple[str, ...] = Field(default=("*",), description="Shell patterns of the models that it may use.")
    api_keys: tuple[str, ...] = Field(
        default=(), description="SHA-256 of its API keys, as `sha256:` and 64 hexadecimal digits; several for rotation."
    )
    certificates: tuple[str, ...] = Field(
        default=(), description="Common or alternative names of its client certificates (with `listen.tls.client_ca`)."
    )
    admin: bool = Field(
        default=False,
        description="Whether it may load and unload models, change settings, and register and use shared memory; "
        "includes `monitor`. On a loopback address where no tenant has credentials, everybody may, as with Triton.",
    )
    monitor: bool = Field(
        default=False,
        description="Whether its key opens the HTTP side (live page, metrics, state), which tells of all tenants.",
    )

    @field_validator("api_keys")
    @classmethod
    def _hashed(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if not _KEY.fullmatch(key):
                # Not repeated: it may be a key in plain text.
                raise ValueError("expected `sha256:` and 64 lower-case hexadecimal digits for each key")
        return keys

    @property
    def has_credentials(self) -> bool:
        """Whether the tenant proves who it is."""
        return bool(self.api_keys or self.certificates)

    def core(self, message_bytes: int) -> TenantSettings:
        """The tenant as the core reads it; where nothing is set, a message of `message_bytes` may wait."""
        most_bytes = self.max_queue_bytes
        if most_bytes is not None and "max_queue_bytes" not in self.model_fields_set:
            most_bytes = max(most_bytes, message_bytes)
        return TenantSettings(
            weight=self.weight,
            max_in_flight=self.max_in_flight,
            max_queued=self.max_queued,
            max_rows_in_flight=self.max_rows_in_flight,
            max_queue_bytes=most_bytes,
            model_caps={name: Cap(cap.max_in_flight, cap.max_rows_in_flight) for name, cap in self.model_caps.items()},
            rate=None if self.rate_per_s is None else self.rate_per_s.core(self.burst),
        )
