"""The configuration: one YAML file, read into frozen pydantic models, validated once, all errors together.

Precedence: flags, then the file, then the environment (`FAIRLANE_GRPC`, `FAIRLANE_HTTP`,
`FAIRLANE_MODEL_REPOSITORY`), then the defaults below. docs/config.md lists every field.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from scheduler.core.settings import Cap, ClassSettings, CoreSettings, TenantSettings
from scheduler.errors import StartError

# 9001 and 9080 lie beside Triton's 8000 to 8002 and collide with none of them.
DEFAULT_GRPC: Final = "127.0.0.1:9001"
DEFAULT_HTTP: Final = "127.0.0.1:9080"
DEFAULT_REPOSITORY: Final = Path("model_repository")
# Background keeps a trickle of 1/17 of the service while interactive traffic is backlogged.
INTERACTIVE_WEIGHT: Final = 16
# A person does not notice 40 ms; it allows background batches of several rows on a CPU.
INTERACTIVE_WAIT_MS: Final = 40
# More interactive requests than this cannot be answered while someone still looks at the screen.
INTERACTIVE_QUEUED: Final = 1024
# A background queue is there to keep instances busy; jobs beyond it come back after the pushback.
BACKGROUND_QUEUED: Final = 20_000
# One tenant with all its places in flight leaves room for others on any model of ours.
TENANT_IN_FLIGHT: Final = 64
TENANT_QUEUED: Final = 4096
# Half of what all may queue: no tenant can fill the queue with a few large requests.
TENANT_QUEUE_BYTES: Final = 128 * 1024 * 1024
# More clients than most services have at a time; each invented name gains a request ahead of its turn.
MAX_TENANTS: Final = 1000
MAX_QUEUED: Final = 40_000
# 256 MiB of waiting tensors, whatever the number of requests.
QUEUE_BYTES: Final = 256 * 1024 * 1024
# Triton's own client defaults to no bound, gRPC to 4 MiB; 64 MiB holds a batch of images.
MESSAGE_BYTES: Final = 64 * 1024 * 1024
# Long enough for accepted work on a CPU, short of the 30 s after which orchestrators kill.
DRAIN_S: Final = 20.0
# A dashboard cannot show more, and each costs a few series for every class, model and outcome.
LABELLED_TENANTS: Final = 20
# The last seconds of a busy service, the last minutes of a quiet one; a few MB.
JOURNAL_REQUESTS: Final = 4096
# One request in a hundred tells how the usual ones fare.
TRACE_SAMPLE: Final = 0.01


class _Settings(BaseModel):
    """A frozen part of the file; unknown keys are errors, so that a typo cannot pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Listen(_Settings):
    """Where the service listens."""

    grpc: str = Field(default=DEFAULT_GRPC, description="HOST:PORT of the gRPC service; port 0 takes a free one.")
    http: str = Field(
        default=DEFAULT_HTTP, description="HOST:PORT of the live page, /metrics, /healthz, /readyz and /debug."
    )


class BackendConfig(_Settings):
    """A running Triton."""

    name: str = Field(description="Name in logs, metrics and the snapshot.", min_length=1)
    grpc: str = Field(description="HOST:PORT of its gRPC service.")


class ClassConfig(_Settings):
    """A priority class."""

    name: str = Field(description="As in `x-priority`.", min_length=1)
    weight: float = Field(default=1, gt=0, description="Share of service time while all classes are backlogged.")
    wait_ms: float | None = Field(
        default=None,
        gt=0,
        description="How long a request may wait for lesser batches already at Triton; bounds their size.",
    )
    max_queued: int = Field(default=BACKGROUND_QUEUED, gt=0, description="Waiting requests of the class, at most.")
    max_queue_bytes: int | None = Field(
        default=None, gt=0, description="Bytes of the class's waiting tensors, at most; not set: `limits.queue_bytes`."
    )
    strict: bool = Field(
        default=False,
        description="Always before every lesser class, which may then starve; only below other strict classes.",
    )


class CapConfig(_Settings):
    """What one tenant may have at Triton of one model."""

    max_in_flight: int | None = Field(
        default=None, gt=0, description="Requests for the model at Triton at a time, at most."
    )
    max_rows_in_flight: int | None = Field(
        default=None, gt=0, description="Rows for the model at Triton at a time, at most."
    )


class TenantConfig(_Settings):
    """What one tenant may hold; `default` holds for every tenant without an entry."""

    weight: float = Field(default=1, gt=0, description="Share of its class relative to the other tenants.")
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
        default=TENANT_QUEUE_BYTES, gt=0, description="Bytes of its waiting tensors, at most."
    )
    rate_per_s: float | None = Field(
        default=None, gt=0, description="Requests let in a second, on average; not set: any number."
    )
    burst: int | None = Field(
        default=None,
        gt=0,
        description="Requests let in at once after a silence; not set: as many as `rate_per_s` lets in a second.",
    )

    @model_validator(mode="after")
    def _burst_of_a_rate(self) -> Self:
        if self.burst is not None and self.rate_per_s is None:
            raise ValueError("burst: expected rate_per_s beside it")
        return self


class Limits(_Settings):
    """Bounds of the whole process."""

    max_queued: int = Field(default=MAX_QUEUED, gt=0, description="Waiting requests in all, at most.")
    max_tenants: int = Field(
        default=MAX_TENANTS,
        gt=0,
        description="Tenants without an entry told apart at a time; those beyond share one place.",
    )
    queue_bytes: int = Field(default=QUEUE_BYTES, gt=0, description="Bytes of waiting tensors in all, at most.")
    message_bytes: int = Field(default=MESSAGE_BYTES, gt=0, description="Bytes of one gRPC message, at most.")
    drain_s: float = Field(default=DRAIN_S, ge=0, description="Seconds to finish accepted requests when stopping.")


class Logs(_Settings):
    """What the service writes to standard error."""

    format: Literal["console", "json"] = Field(default="console", description="`console` for people, or `json`.")
    level: Literal["debug", "info", "warning"] = Field(
        default="info", description="`debug` has a line for every request; refusals are sampled from `info` on."
    )


class Tracing(_Settings):
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


class TelemetryConfig(_Settings):
    """What is told of the requests that pass."""

    enabled: bool = Field(
        default=True, description="Whether anything is measured: /metrics, the live page, `fairlane explain`, traces."
    )
    tenants: int = Field(
        default=LABELLED_TENANTS, ge=0, description="Tenants with a label of their own in /metrics, at most."
    )
    requests: int = Field(
        default=JOURNAL_REQUESTS, ge=0, description="The last requests kept for `fairlane explain`; about 1 KB each."
    )
    logs: Logs = Field(default_factory=Logs, description="What the service writes to standard error.")
    tracing: Tracing = Field(default_factory=Tracing, description="OpenTelemetry spans.")


class ModelConfigEntry(_Settings):
    """Per-model settings of the scheduler (Triton's own stand in config.pbtxt)."""

    merge: bool = Field(default=True, description="Whether requests of different callers may ride in one batch.")


def _default_classes() -> tuple[ClassConfig, ...]:
    return (
        ClassConfig(
            name="interactive",
            weight=INTERACTIVE_WEIGHT,
            wait_ms=INTERACTIVE_WAIT_MS,
            max_queued=INTERACTIVE_QUEUED,
        ),
        ClassConfig(name="background", weight=1, max_queued=BACKGROUND_QUEUED),
    )


class Config(_Settings):
    """The whole configuration."""

    listen: Listen = Field(default_factory=Listen, description="Where the service listens.")
    backends: tuple[BackendConfig, ...] = Field(
        default=(), description="Running Tritons; none starts an embedded one on `model_repository`."
    )
    model_repository: Path = Field(
        default=DEFAULT_REPOSITORY, description="Triton model repository of the embedded Triton."
    )
    classes: tuple[ClassConfig, ...] = Field(
        default_factory=_default_classes, description="Priority classes, most important first."
    )
    default_class: str | None = Field(
        default=None, description="Class of untagged requests; the most important one where not set."
    )
    tenants: dict[str, TenantConfig] = Field(
        default_factory=dict, description="Settings by tenant; `default` is for all others."
    )
    limits: Limits = Field(default_factory=Limits, description="Bounds of the whole process.")
    telemetry: TelemetryConfig = Field(
        default_factory=TelemetryConfig, description="What is told of the requests that pass."
    )
    models: dict[str, ModelConfigEntry] = Field(default_factory=dict, description="Per-model settings.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [entry.name for entry in self.classes]
        if not names:
            raise ValueError("classes: expected at least one")
        if len(set(names)) != len(names):
            raise ValueError(f"classes: names must differ, got {', '.join(names)}")
        if [entry.strict for entry in self.classes] != sorted((entry.strict for entry in self.classes), reverse=True):
            raise ValueError("classes: expected strict classes before all others, where more important ones stand")
        if self.default_class is not None and self.default_class not in names:
            raise ValueError(f"default_class: expected one of {', '.join(names)}, got {self.default_class!r}")
        backends = [entry.name for entry in self.backends]
        if len(set(backends)) != len(backends):
            raise ValueError(f"backends: names must differ, got {', '.join(backends)}")
        return self

    @property
    def untagged_class(self) -> str:
        """The class of requests that name none: untagged traffic is never worse off than with Triton alone."""
        return self.default_class or self.classes[0].name

    def merges(self, model: str) -> bool:
        """Whether requests for the model may ride in one batch."""
        entry = self.models.get(model)
        return entry is None or entry.merge

    def core_settings(self) -> CoreSettings:
        """The part that the core decides by."""
        default = self.tenants.get("default", TenantConfig())
        return CoreSettings(
            classes=tuple(_class_settings(entry) for entry in self.classes),
            # Requests that name no tenant come as `default`: that one is never an unknown name.
            tenants={name: _tenant_settings(entry) for name, entry in ({"default": default} | self.tenants).items()},
            default_tenant=_tenant_settings(default),
            max_tenants=self.limits.max_tenants,
            max_queued=self.limits.max_queued,
            queue_bytes=self.limits.queue_bytes,
        )


def _class_settings(entry: ClassConfig) -> ClassSettings:
    return ClassSettings(
        name=entry.name,
        weight=entry.weight,
        max_queued=entry.max_queued,
        wait_s=None if entry.wait_ms is None else entry.wait_ms / 1000,
        max_queue_bytes=entry.max_queue_bytes,
        strict=entry.strict,
    )


def _tenant_settings(entry: TenantConfig) -> TenantSettings:
    return TenantSettings(
        weight=entry.weight,
        max_in_flight=entry.max_in_flight,
        max_queued=entry.max_queued,
        max_rows_in_flight=entry.max_rows_in_flight,
        max_queue_bytes=entry.max_queue_bytes,
        model_caps={name: Cap(cap.max_in_flight, cap.max_rows_in_flight) for name, cap in entry.model_caps.items()},
        rate_per_s=entry.rate_per_s,
        burst=entry.burst or max(1, int(entry.rate_per_s or 1)),
    )


def load(path: Path | None, overrides: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    Args:
        path: the YAML file; None: no file.
        overrides: what the flags say, in the shape of the file, absent where a flag was not given.
        environment: where `FAIRLANE_...` is looked up.

    Raises:
        StartError: with every error and the path of each, one a line.
    """
    merged = _merge(_merge(_from_environment(environment), _read(path)), overrides)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        source = "configuration" if path is None else str(path)
        lines = [f"  {_where(detail['loc'])}: {_why(detail)}" for detail in error.errors()]
        raise StartError(f"{source}: {len(lines)} error(s)\n" + "\n".join(lines)) from None


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StartError(f"{path}: expected a mapping at the top, got {type(content).__name__}")
    return content


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if "FAIRLANE_GRPC" in environment:
        values.setdefault("listen", {})["grpc"] = environment["FAIRLANE_GRPC"]
    if "FAIRLANE_HTTP" in environment:
        values.setdefault("listen", {})["http"] = environment["FAIRLANE_HTTP"]
    if "FAIRLANE_MODEL_REPOSITORY" in environment:
        values["model_repository"] = environment["FAIRLANE_MODEL_REPOSITORY"]
    return values


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; anything else is replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(whole file)"


def _why(detail: Any) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown key"
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    return message if isinstance(given, dict | list | Config) else f"{message}, got {given!r}"
