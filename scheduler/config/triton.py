"""The embedded tritonserver: flags of its own, and how long it is waited for."""

from typing import Final

from pydantic import Field, field_validator

from scheduler.config.section import Section

# Several times what small models need; one that needs longer is served when it is loaded.
LOAD_S: Final = 30.0
# What Fairlane sets itself, or needs as it is: what is loaded and when, what the log says, where the server listens.
# Other protocols than gRPC, HTTP and metrics would listen on every address.
OWN_FLAGS: Final = (
    "id",
    "model-repository",
    "model-store",
    "backend-directory",
    "model-control-mode",
    "load-model",
    "repository-poll-secs",
    "model-namespacing",
    "model-config-name",
    "exit-on-error",
    "exit-timeout-secs",
    "disable-auto-complete-config",
    "strict-model-config",
    "strict-readiness",
    "log-file",
    "log-format",
    "log-info",
    "log-error",
    "help",
    *(f"{kind}-{what}" for kind in ("grpc", "http", "metrics") for what in ("port", "address")),
    *(f"reuse-{kind}-port" for kind in ("grpc", "http")),
    *(f"allow-{kind}" for kind in ("grpc", "http", "metrics", "sagemaker", "vertex-ai")),
    "sagemaker-port",
    "sagemaker-safe-port-range",
    "vertex-ai-port",
    "grpc-use-ssl",
    "grpc-use-ssl-mutual",
    "grpc-server-cert",
    "grpc-server-key",
    "grpc-root-cert",
    "grpc-restricted-protocol",
    "grpc-header-forward-pattern",  # by forward_headers
    "http-restricted-api",
)
# The prefix of shared memory's names, by which what a killed server leaves is found.
OWN_BACKEND_SETTING: Final = "python,shm-region-prefix-name="


class TritonConfig(Section):
    """The embedded Triton."""

    args: tuple[str, ...] = Field(
        default=(),
        description="Further flags of the embedded tritonserver, such as `--log-verbose=1`; those that Fairlane sets "
        "itself are refused.",
    )
    load_s: float = Field(
        default=LOAD_S,
        gt=0,
        description="Seconds that the start waits for models to load; those that need longer are served when they are "
        "loaded. With `strict_models` the start fails then.",
    )

    @field_validator("args")
    @classmethod
    def _flags(cls, args: tuple[str, ...]) -> tuple[str, ...]:
        value_may_follow = False
        for arg in args:
            if not arg.startswith("--"):
                if not value_may_follow:
                    raise ValueError(f"expected a flag as `--NAME=VALUE`, got {arg!r}")
                value_may_follow = False
                continue
            name, equals, value = arg[2:].partition("=")
            if _is_own(name) or (name == "backend-config" and value.startswith(OWN_BACKEND_SETTING)):
                raise ValueError(f"--{name}: Fairlane sets this flag itself; expected another one")
            if name == "backend-config" and not equals:
                raise ValueError("--backend-config: expected `--backend-config=BACKEND,NAME=VALUE` in one piece")
            value_may_follow = not equals
        return args


def _is_own(name: str) -> bool:
    """Whether it is one of ours; Triton takes a flag's beginning for the flag."""
    return any(own.startswith(name) for own in OWN_FLAGS)
