"""The whole configuration, and what must hold between its parts."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from scheduler.config.classes import ClassConfig, default_classes
from scheduler.config.headers import HeaderPattern
from scheduler.config.limits import Limits
from scheduler.config.listen import BackendConfig, Listen, loopback
from scheduler.config.section import Section
from scheduler.config.telemetry import TelemetryConfig
from scheduler.config.tenants import DEFAULT_TENANT, TenantConfig
from scheduler.config.triton import TritonConfig
from scheduler.core.settings import CoreSettings

DEFAULT_REPOSITORY: Final = Path("model_repository")
# What a reload may change.
RELOADED: Final = frozenset({"classes", "default_class", "tenants", "models", "allow_anonymous", "backends"})


RELOADED_LIMITS: Final = frozenset({"hang_s", "outage_s"})


def _none(given: object) -> object:
    """`none` is how people write it, and a word to YAML."""
    return None if given == "none" else given


# What a model's cost is: `INPUT.size` or `parameters.NAME`.
PARAMETERS: Final = "parameters."
SIZE: Final = ".size"


class PadConfig(Section):
    """How requests for a model that has a mask are padded to ride together."""

    axis: int = Field(ge=1, description="Axis of the inputs that is padded; 0 is the batch.")
    mask: str = Field(
        min_length=1, description="Input that is 0 where a place is padding: the model must look at no such place."
    )
    values: dict[str, float] = Field(
        default_factory=dict, description="What other inputs are padded with, by name; not set: 0."
    )


class ModelConfigEntry(Section):
    """Per-model settings of the scheduler (Triton's own stand in config.pbtxt)."""

    merge: bool = Field(
        default=True, description="Whether requests of different callers may share a batch, here or at Triton."
    )
    batch_invariant: bool | None = Field(
        default=None,
        description="Whether answers do not depend on what else is in the batch, so that different tenants' requests "
        "may ride together; not set: what `batch_invariant` says in the parameters of config.pbtxt.",
    )
    in_flight: int | None = Field(
        default=None,
        ge=1,
        description="Executions of the model that a backend is given at a time, at most; not set: one more than its "
        "instances, or as many as were found to raise its throughput.",
    )
    check_merging: bool = Field(
        default=True,
        description="Whether a merged request is asked again alone once in a while, and the model's requests ride "
        "alone where the answers differ.",
    )
    pad: PadConfig | None = Field(
        default=None,
        description="How requests of unlike lengths are padded to ride together, for a model with a mask; not set: "
        "they ride apart.",
    )
    hang_s: Annotated[float | None, BeforeValidator(_none)] = Field(
        default=None,
        gt=0,
        description="Seconds without a sign of it, a response of its stream included, after which a batch is given up "
        "though its server lives; `none`: as long as it takes.",
    )
    cost: str | None = Field(
        default=None,
        pattern=r"^(parameters\..+|.+\.size)$",
        description="What the time of a request depends on beside its rows and shape: `INPUT.size`, the number of "
        "elements of an input, or `parameters.NAME`, a request parameter that is a number; not set: nothing.",
    )


class Config(Section):
    """The whole configuration."""

    listen: Listen = Field(default_factory=Listen, description="Where the service listens.")
    backends: tuple[BackendConfig, ...] = Field(
        default=(), description="Running Tritons; none starts an embedded one on `model_repository`."
    )
    model_repository: Path = Field(
        default=DEFAULT_REPOSITORY, description="Triton model repository of the embedded Triton."
    )
    triton: TritonConfig = Field(default_factory=TritonConfig, description="The embedded Triton.")
    strict_models: bool = Field(
        default=False,
        description="Whether a model of the embedded Triton that does not load fails the start; else the others are "
        "served, and the broken one is named.",
    )
    own_cpu: bool = Field(
        default=True,
        description="Whether the scheduler keeps to one CPU and the embedded Triton's models to the others, where this "
        "process may use at least two. `false`: all use all; for models that need every CPU more than an even answer.",
    )
    classes: tuple[ClassConfig, ...] = Field(
        default_factory=default_classes, description="Priority classes, most important first."
    )
    default_class: str | None = Field(
        default=None, description="Class of requests that name none. Not set: the most important one."
    )
    tenants: dict[str, TenantConfig] = Field(
        default_factory=dict, description="Settings by tenant; `default` is for all others."
    )
    limits: Limits = Field(default_factory=Limits, description="Bounds of the whole process.")
    telemetry: TelemetryConfig = Field(
        default_factory=TelemetryConfig, description="Logs, metrics and traces of the requests."
    )
    models: dict[str, ModelConfigEntry] = Field(default_factory=dict, description="Per-model settings.")
    forward_headers: tuple[HeaderPattern, ...] = Field(
        default=(),
        description="Request headers that are handed to models, by name or shell pattern: as metadata of the call to "
        "Triton. Requests with different values never ride together.",
    )
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
        for entry in self.backends:
            clash = [name for name in backends if entry.resolve == "all" and name.startswith(f"{entry.name}/")]
            if clash:
                raise ValueError(f"backends: {clash[0]} may be one of the addresses of {entry.name}")
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
        if not (self.authenticates or self.allow_anonymous or loopback(self.listen.grpc)):
            raise ValueError(
                f"listen.grpc: {self.listen.grpc} is not a loopback address: expected tenants with api_keys or "
                "certificates, or `allow_anonymous: true`"
            )
        admins = sorted(name for name, tenant in self.tenants.items() if tenant.admin and not tenant.has_credentials)
        if admins and not loopback(self.listen.grpc):
            raise ValueError(
                f"tenants.{admins[0]}.admin: expected api_keys or certificates, since {self.listen.grpc} is not a "
                "loopback address"
            )

    @property
    def authenticates(self) -> bool:
        """Whether callers prove who they are."""
        return any(tenant.has_credentials for tenant in self.tenants.values())

    @property
    def open_as_triton(self) -> bool:
        """Whether everybody may administer, as with Triton: on loopback, where nobody has credentials."""
        return loopback(self.listen.grpc) and not self.authenticates

    @property
    def untagged_class(self) -> str:
        """The class of requests that name none: untagged traffic is never worse off than with Triton alone."""
        return self.default_class or self.classes[0].name

    def merges(self, model: str) -> bool:
        """Whether requests for the model may ride in one batch."""
        entry = self.models.get(model)
        return entry is None or entry.merge

    def padding(self, model: str) -> PadConfig | None:
        """How the model's requests are padded to ride together; None: they are not."""
        entry = self.models.get(model)
        return None if entry is None else entry.pad

    def checks_merging(self, model: str) -> bool:
        """Whether merged requests are asked again alone once in a while."""
        entry = self.models.get(model)
        return entry is None or entry.check_merging

    def cost(self, model: str) -> str | None:
        """What the operator says that a request for the model costs; None: nothing."""
        entry = self.models.get(model)
        return None if entry is None else entry.cost

    def batch_invariant(self, model: str) -> bool | None:
        """What the operator says of the model's batch invariance; None: nothing."""
        entry = self.models.get(model)
        return None if entry is None else entry.batch_invariant

    def reload_errors(self, new: Self) -> list[str]:
        """Why the new configuration cannot take this one's place while the service runs; nothing where it can."""
        errors = [
            f"{name}: cannot change while the service runs"
            for name in type(self).model_fields
            if name not in RELOADED and name != "limits" and getattr(self, name) != getattr(new, name)
        ]
        errors += [
            f"limits.{name}: cannot change while the service runs"
            for name in type(self.limits).model_fields
            if name not in RELOADED_LIMITS and getattr(self.limits, name) != getattr(new.limits, name)
        ]
        if bool(self.backends) != bool(new.backends):
            errors.append("backends: an embedded Triton cannot be taken up or given up while the service runs")
        before, after = ([each.name for each in config.classes] for config in (self, new))
        if before != after:
            errors.append(
                f"classes: names and order cannot change while the service runs: expected {', '.join(before)}, "
                f"got {', '.join(after)}"
            )
        return errors

    def core_settings(self) -> CoreSettings:
        """The part that the core decides by."""
        default = self.tenants.get(DEFAULT_TENANT, TenantConfig())
        message_bytes = self.limits.message_bytes
        return CoreSettings(
            classes=tuple(entry.core() for entry in self.classes),
            # Requests that name no tenant come as `default`: that one is never an unknown name.
            tenants={
                name: entry.core(message_bytes) for name, entry in ({DEFAULT_TENANT: default} | self.tenants).items()
            },
            default_tenant=default.core(message_bytes),
            max_tenants=self.limits.max_tenants,
            max_queued=self.limits.max_queued,
            queue_bytes=self.limits.most_queue_bytes,
            max_sequences=self.limits.max_sequences,
            hang_s=self.limits.hang_s,
            outage_s=self.limits.outage_s,
            model_hang_s={name: each.hang_s for name, each in self.models.items() if each.hang_s is not None},
            model_in_flight={
                name: entry.in_flight for name, entry in self.models.items() if entry.in_flight is not None
            },
        )
