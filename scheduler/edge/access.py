"""Who asks, and what they may do: tenants by API key or client certificate, allowed classes and models, administration.

Keys are configured as their SHA-256, and looked up by a keyed hash of that with a secret of this process:
how long a look-up takes then says nothing about the configured values (the "double HMAC" comparison).
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from scheduler.config import DEFAULT_TENANT, Config, TenantConfig
from scheduler.errors import denied, invalid, shown, unauthenticated

# Names come from outside and end in logs and metrics.
NAME_LENGTH: Final = 128
TENANT_HEADERS: Final = ("x-tenant-id", "x-llm-d-inference-fairness-id")
# Where gRPC puts what a verified client certificate says of its holder.
CERTIFICATE_NAMES: Final = ("x509_common_name", "x509_subject_alternative_name")
CREDENTIALS_EXPECTED: Final = "expected an API key (authorization: Bearer KEY) or a known client certificate"

AuthContext = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rights:
    """What a tenant may do.

    Attributes:
        classes: names of the classes that it may use, None: all.
        models: shell patterns of the models that it may use, None: all.
        admin: whether it may load, unload and change settings of the backends.
        monitor: whether it may see what the HTTP side tells of all tenants.
    """

    classes: frozenset[str] | None
    models: tuple[str, ...] | None
    admin: bool
    monitor: bool

    def permits_model(self, model: str) -> bool:
        """Whether the tenant may use the model."""
        return self.models is None or any(fnmatchcase(model, pattern) for pattern in self.models)


class Access:
    """The access rules of one configuration; a reload makes a new one."""

    def __init__(self, config: Config) -> None:
        self._anonymous = config.allow_anonymous or not config.authenticates
        self._authenticates = config.authenticates
        self._secret = secrets.token_bytes(32)
        self._by_key: dict[bytes, str] = {}
        self._by_certificate: dict[str, str] = {}
        self._with_credentials = {name for name, entry in config.tenants.items() if entry.has_credentials}
        # Where no name is proved, `admin` of one name would be everybody's who gives it.
        everybody_administers = config.open_as_triton
        self._rights = {name: _rights(entry, everybody_administers) for name, entry in config.tenants.items()}
        self._others = self._rights.get(DEFAULT_TENANT, _rights(TenantConfig(), everybody_administers))
        for name, entry in config.tenants.items():
            for key in entry.api_keys:
                self._by_key[self._blinded(bytes.fromhex(key.removeprefix("sha256:")))] = name
            for subject in entry.certificates:
                self._by_certificate[subject] = name

    def identify(self, headers: Mapping[str, str], auth_context: AuthContext) -> str:
        """The tenant that asks.

        Args:
            headers: the call's metadata.
            auth_context: gives what the transport knows of the peer; called only where certificates count.

        Raises:
            RequestError: UNAUTHENTICATED where nobody known asks; PERMISSION_DENIED where a known tenant names
                another one; INVALID_ARGUMENT for an unusable name.
        """
        named = _named_tenant(headers)
        if not self._authenticates:
            return named or DEFAULT_TENANT
        tenant = self._shown(headers, auth_context)
        if tenant is None:
            return self._anonymous_tenant(named or DEFAULT_TENANT)
        if named and named != tenant:
            raise denied(tenant, f"tenant {tenant}: expected no other tenant's name in the metadata, got {named!r}")
        return tenant

    def rights(self, tenant: str) -> Rights:
        """What the tenant may do."""
        return self._rights.get(tenant, self._others)

    def check_model(self, tenant: str, model: str) -> None:
        """Raise PERMISSION_DENIED where the tenant may not use the model."""
        if not self.rights(tenant).permits_model(model):
            raise denied(tenant, f"tenant {tenant} may not use model {shown(model)}")

    def check_admin(self, tenant: str, method: str) -> None:
        """Raise PERMISSION_DENIED where the tenant may not administer."""
        if not self.rights(tenant).admin:
            raise denied(tenant, f"{method}: expected a tenant with `admin: true`, got {tenant}")

    def check_monitor(self, tenant: str, what: str) -> None:
        """Refuse a tenant that may not see what is told of all tenants; where nobody has credentials, everybody may.

        Raises:
            RequestError: PERMISSION_DENIED; UNAUTHENTICATED for a caller without credentials, who may have some.
        """
        if not self._authenticates or self.rights(tenant).monitor:
            return
        if tenant not in self._with_credentials:
            raise unauthenticated(CREDENTIALS_EXPECTED)
        raise denied(tenant, f"{what}: expected a tenant with `monitor: true` or `admin: true`, got {tenant}")

    def _shown(self, headers: Mapping[str, str], auth_context: AuthContext) -> str | None:
        """The tenant whose credentials came with the call, None where none came."""
        authorization = headers.get("authorization")
        if authorization is not None:
            scheme, _, key = authorization.partition(" ")
            digest = hashlib.sha256(key.strip().encode()).digest()
            tenant = self._by_key.get(self._blinded(digest))
            if scheme.lower() != "bearer" or tenant is None:
                raise unauthenticated("authorization: expected `Bearer` and a known API key")
            return tenant
        if not self._by_certificate:
            return None
        about = auth_context()
        names = (value for field in CERTIFICATE_NAMES for value in about.get(field, ()))
        found = (self._by_certificate.get(name.decode(errors="replace")) for name in names)
        return next((tenant for tenant in found if tenant is not None), None)

    def _anonymous_tenant(self, tenant: str) -> str:
        if not self._anonymous:
            raise unauthenticated(CREDENTIALS_EXPECTED)
        if tenant in self._with_credentials or self.rights(tenant).admin:
            raise unauthenticated(f"tenant {tenant}: expected its API key or client certificate")
        return tenant

    def _blinded(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._secret, digest_size=32).digest()


def printable_name(value: str, header: str) -> str:
    """The value of a header as a name.

    Raises:
        RequestError: INVALID_ARGUMENT: too long, or not printable.
    """
    if len(value) > NAME_LENGTH or not value.isprintable():
        raise invalid(
            f"{header}: expected at most {NAME_LENGTH} printable characters, "
            f"got {len(value)} characters{'' if value.isprintable() else ', some not printable'}"
        )
    return value


def _named_tenant(headers: Mapping[str, str]) -> str | None:
    for header in TENANT_HEADERS:
        name = headers.get(header)
        if name:
            return printable_name(name, header)
    return None


def _rights(entry: TenantConfig, everybody_administers: bool) -> Rights:
    return Rights(
        classes=None if entry.classes is None else frozenset(entry.classes),
        models=None if "*" in entry.models else entry.models,
        admin=entry.admin or everybody_administers,
        monitor=entry.monitor or entry.admin,
    )
