"""The configuration: one YAML file, read into frozen pydantic models, validated once, all errors together.

Precedence: flags, then the file, then the environment (`FAIRLANE_GRPC`, `FAIRLANE_HTTP`,
`FAIRLANE_MODEL_REPOSITORY`), then the defaults. A file here for each part; docs/reference/config.md lists every field.
"""

from scheduler.config.config import Config
from scheduler.config.file import load
from scheduler.config.limits import Limits
from scheduler.config.listen import DEFAULT_HTTP, BackendConfig, ServerTls, split_address
from scheduler.config.tenants import DEFAULT_TENANT, TenantConfig

__all__ = [
    "DEFAULT_HTTP",
    "DEFAULT_TENANT",
    "BackendConfig",
    "Config",
    "Limits",
    "ServerTls",
    "TenantConfig",
    "load",
    "split_address",
]
