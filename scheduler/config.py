"""The configuration: one YAML file, read into frozen pydantic models, validated once, all errors together.

Precedence: flags, then the file, then the environment (`FAIRLANE_GRPC`, `FAIRLANE_HTTP`,
`FAIRLANE_MODEL_REPOSITORY`), then the defaults below. docs/config.md lists every field.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from scheduler.core.settings import Cap, ClassSettings, CoreSettings, TenantSettings
from scheduler.errors import StartError

# 9001 and 9080 lie beside Triton's 8000 to 8002 and collide with none of them.
DEFAULT_GRPC: Final = "127.0.0.1:9001"
DEFAULT_HTTP: Final = "127.0.0.1:9080"
DEFAULT_REPOSITORY: Final = Path("model_repository")
# Background keeps a trickle of 1/17 of the service while interactive traffic is backlogged.
INTERACTIVE_WEIGHT: Final = 16
# A person does not notice 22 ms; it allows background batches of several rows on a CPU.
INTERACTIVE_WAIT_MS: Final = 22
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
# A few hundred bytes each, and more than the sequence slots of most backends.
MAX_SEQUENCES: Final = 10_000
# 256 MiB of waiting tensors, whatever the number of requests.
QUEUE_BYTES: Final = 256 * 1024 * 1024
# Triton's own client defaults to no bound, gRPC to 4 MiB; 64 MiB holds a batch of images.
MESSAGE_BYTES: Final = 64 * 1024 * 1024
# Long enough for accepted work on a CPU, short of the 30 s after which orchestrators kill.
DRAIN_S: Final = 20.0
# Several times what a message of the largest size takes, and loading a model may stop a server's others for seconds.
HANG_S: Final = 10.0
# A dashboard cannot show more, and each costs a few series for every class, model and outcome.
LABELLED_TENANTS: Final = 20
# The last seconds of a busy service, the last minutes of a quiet one; a few MB.
JOURNAL_REQUESTS: Final = 4096
# One request in a hundred tells how the usual ones fare.
TRACE_SAMPLE: Final = 0.01
# Triton's and gRPC's own clients send less than 1 KiB; a trace context and a token fit easily.
METADATA_BYTES: Final = 16 * 1024
# Calls that one connection may have open, a bound on what a peer makes us hold. Above what may wait in all: gRPC resets
# calls beyond it (UNAVAILABLE, no pushback) before they are seen here, and a full queue has to be told as such.
CALLS_PER_CONNECTION: Final = 50_000
# A peer that vanished without a word is found within a minute.
KEEPALIVE_S: Final = 40.0
# Long enough that a client that calls now and then keeps its connection.
IDLE_S: Final = 1800.0
# The settings of every tenant without an entry, and the tenant of whoever names none.
DEFAULT_TENANT: Final = "default"
# What a reload may change.
RELOADED: Final = frozenset({"classes", "default_class", "tenants", "models", "allow_anonymous"})
_KEY: Final = re.compile(r"sha256:[0-9a-f]{64}")


class _Settings(BaseModel):
    """A frozen part of the file; unknown keys are errors, so that a typo cannot pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerTls(_Settings):
    """The service's own certificate. The files are read again when they change, without a restart."""

    certificate: Path = Field(description="Certificate chain of the service, PEM.")
    key: Path = Field(description="Private key of the service, PEM.")
    client_ca: Path | None = Field(
        default=None, description="Authorities of client certificates, PEM; where set, every client must show one."
    )


class BackendTls(_Settings):
    """How to speak TLS to a backend."""

    ca: Path | None = Field(
        default=None, description="Authorities of the backend's certificate, PEM; none: the system's."
    )
    certificate: Path | None = Field(default=None, description="Certificate chain to show to the backend, PEM.")
    key: Path | None = Field(default=None, description="Private key of that certificate, PEM.")
    server_name: str | None = Field(
        default=None, description="Name expected in the backend's certificate where it is not the address's."
    )


class Listen(_Settings):
    """Where the service listens."""

    grpc: str = Field(default=DEFAULT_GRPC, description="HOST:PORT of the gRPC service; port 0 takes a free one.")
    http: str = Field(
        default=DEFAULT_HTTP, description="HOST:PORT of the live page, /metrics, /healthz, /readyz and /debug."
    )
    tls: ServerTls | None = Field(default=None, description="TLS of the gRPC service; none: plain text.")


class BackendConfig(_Settings):
    """A running Triton."""

    name: str = Field(description="Name in logs, metrics and the snapshot.", min_length=1)
    grpc: str = Field(description="HOST:PORT of its gRPC service.")
    tls: BackendTls | None = Field(default=None, description="TLS to the backend; none: plain text.")
    restricted_protocol: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="KEY: VALUE of Triton's `--grpc-restricted-protocol`, sent as `triton-grpc-protocol-KEY`.",
    )


class ClassConfig(_Settings):
    """A priority class."""

    name: str = Field(description="As in `x-priority`.", min_length=1)
    weight: float = Field(default=1, gt=0, description="Share of service time while all classes are backlogged.")
    wait_ms: float | None = Field(
        default=None,
        gt=0,
        description="How long a request may wait for its own and lesser classes' batches at Triton; bounds their size.",
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
        description="Whether it may load and unload models, change settings and register shared memory; "
        "includes `monitor`.",
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


class Limits(_Settings):
    """Bounds of the whole process."""

    max_queued: int = Field(default=MAX_QUEUED, gt=0, description="Waiting requests in all, at most.")
    max_tenants: int = Field(
        default=MAX_TENANTS,
        gt=0,
        description="Tenants without an entry told apart at a time; those beyond share one place.",
    )
    queue_bytes: int = Field(default=QUEUE_BYTES, gt=0, description="Bytes of waiting tensors in all, at most.")
    max_sequences: int = Field(
        default=MAX_SEQUENCES,
        gt=0,
        description="Stateful sequences known at a time, at most; a tenant may start one while it has fewer than there "
        "is room left for, so half of them where it is alone.",
    )
    message_bytes: int = Field(default=MESSAGE_BYTES, gt=0, description="Bytes of one gRPC message, at most.")
    drain_s: float = Field(default=DRAIN_S, ge=0, description="Seconds to finish accepted requests when stopping.")
    hang_s: float = Field(
        default=HANG_S,
        gt=0,
        description="Seconds before which no batch counts as hung; ten times its usual time where that is more.",
    )
    metadata_bytes: int = Field(
        default=METADATA_BYTES, ge=1024, description="Bytes of one call's metadata, at most; gRPC refuses more."
    )
    calls_per_connection: int = Field(
        default=CALLS_PER_CONNECTION,
        gt=0,
        description="Open calls of one connection, at most, above `limits.max_queued`; gRPC resets those beyond.",
    )
    keepalive_s: float = Field(
        default=KEEPALIVE_S,
        gt=0,
        description="Seconds of silence after which a connection is asked for a sign of life.",
    )
    idle_s: float = Field(
        default=IDLE_S, gt=0, description="Seconds after which a connection without calls is closed; clients reconnect."
    )

    @model_validator(mode="after")
    def _refused_before_reset(self) -> Self:
        if self.calls_per_connection <= self.max_queued:
            raise ValueError(
                f"calls_per_connection: expected more than max_queued, so that a full queue is told before gRPC resets "
                f"calls; got {self.calls_per_connection} and max_queued {self.max_queued}"
            )
        return self


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
    batch_invariant: bool | None = Field(
        default=None,
        description="Whether answers do not depend on what else is in the batch, so that different tenants' requests "
        "may ride together; not set: what `batch_invariant` says in the parameters of config.pbtxt.",
    )


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
    own_cpu: bool = Field(
        default=True,
        description="Whether the scheduler keeps to one CPU and the embedded Triton to the others, where this process "
        "may use at least two. `false`: both use all; for models that need every CPU more than an even answer.",
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
    allow_anonymous: bool = Field(
        default=False,
        description="Whether callers without credentials are served on other than loopback addresses, or beside "
        "tenants with credentials.",
    )
    audit_log: Path | None = Field(
        default=None, description="File of the audit log, a JSON line a record; not set: standard error."
    )

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
        self._check_tenants(names)
        return self

    def _check_tenants(self, classes: list[str]) -> None:
        owners: dict[str, str] = {}
        for name, tenant in self.tenants.items():
            unknown = [each for each in tenant.classes or () if each not in classes]
            if unknown or tenant.classes == ():
                raise ValueError(
                    f"tenants.{name}.classes: expected some of {', '.join(classes)}, got {', '.join(unknown) or 'none'}"
                )
            for credential in (*tenant.api_keys, *tenant.certificates):
                if owners.setdefault(credential, name) != name:
                    raise ValueError(f"tenants.{name}: has a key or certificate of tenant {owners[credential]}")
            if tenant.certificates and (self.listen.tls is None or self.listen.tls.client_ca is None):
                raise ValueError(f"tenants.{name}.certificates: expected listen.tls.client_ca to be set")
        if not (self.authenticates or self.allow_anonymous or _loopback(self.listen.grpc)):
            raise ValueError(
                f"listen.grpc: {self.listen.grpc} is not a loopback address: expected tenants with api_keys or "
                "certificates, or `allow_anonymous: true`"
            )
        admins = sorted(name for name, tenant in self.tenants.items() if tenant.admin and not tenant.has_credentials)
        if admins and not _loopback(self.listen.grpc):
            raise ValueError(
                f"tenants.{admins[0]}.admin: expected api_keys or certificates, since {self.listen.grpc} is not a "
                "loopback address"
            )

    @property
    def authenticates(self) -> bool:
        """Whether callers prove who they are."""
        return any(tenant.has_credentials for tenant in self.tenants.values())

    @property
    def untagged_class(self) -> str:
        """The class of requests that name none: untagged traffic is never worse off than with Triton alone."""
        return self.default_class or self.classes[0].name

    def merges(self, model: str) -> bool:
        """Whether requests for the model may ride in one batch."""
        entry = self.models.get(model)
        return entry is None or entry.merge

    def batch_invariant(self, model: str) -> bool | None:
        """What the operator says of the model's batch invariance; None: nothing."""
        entry = self.models.get(model)
        return None if entry is None else entry.batch_invariant

    def reload_errors(self, new: Self) -> list[str]:
        """Why the new configuration cannot take this one's place while the service runs; nothing where it can."""
        errors = [
            f"{name}: cannot change while the service runs"
            for name in type(self).model_fields
            if name not in RELOADED and getattr(self, name) != getattr(new, name)
        ]
        before, after = ([each.name for each in config.classes] for config in (self, new))
        if before != after:
            errors.append(
                f"classes: names and order cannot change while the service runs: expected {', '.join(before)}, "
                f"got {', '.join(after)}"
            )
        return errors

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
            max_sequences=self.limits.max_sequences,
            hang_s=self.limits.hang_s,
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


def _loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    # A key that was not hashed is still a secret.
    secret = "api_keys" in detail["loc"] or "restricted_protocol" in detail["loc"]
    return message if secret or isinstance(given, dict | list | tuple | Config) else f"{message}, got {given!r}"
