"""Where the service listens, and the Tritons behind it: addresses and TLS."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr

from scheduler.config.section import Section

# 9001 and 9080 lie beside Triton's 8000 to 8002 and collide with none of them.
DEFAULT_GRPC: Final = "127.0.0.1:9001"
DEFAULT_HTTP: Final = "127.0.0.1:9080"
LAST_PORT: Final = 65535
# As long as Kubernetes' name server lets others keep what it said.
RESOLVE_S: Final = 5.0


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT as (host, port); of an IPv6 address the brackets stay.

    Raises:
        ValueError: it is not of that form.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > LAST_PORT:
        raise ValueError("expected HOST:PORT")
    return host, int(port)


def _address(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, AfterValidator(_address)]


class ServerTls(Section):
    """The service's own certificate. The files are read again when they change, without a restart."""

    certificate: Path = Field(description="Certificate chain of the service, PEM.")
    key: Path = Field(description="Private key of the service, PEM.")
    client_ca: Path | None = Field(
        default=None, description="Authorities of client certificates, PEM; where set, every client must show one."
    )


class BackendTls(Section):
    """How to speak TLS to a backend."""

    ca: Path | None = Field(
        default=None, description="Authorities of the backend's certificate, PEM; none: the system's."
    )
    certificate: Path | None = Field(default=None, description="Certificate chain to show to the backend, PEM.")
    key: Path | None = Field(default=None, description="Private key of that certificate, PEM.")
    server_name: str | None = Field(
        default=None, description="Name expected in the backend's certificate where it is not the address's."
    )


class Listen(Section):
    """Where the service listens."""

    grpc: Address = Field(default=DEFAULT_GRPC, description="HOST:PORT of the gRPC service; port 0 takes a free one.")
    http: Address = Field(
        default=DEFAULT_HTTP, description="HOST:PORT of the live page, /metrics, /healthz, /readyz and /debug."
    )
    tls: ServerTls | None = Field(default=None, description="TLS of the gRPC service; none: plain text.")
    wire: Literal["auto", "native", "grpcio"] = Field(
        default="auto",
        description="What carries gRPC, to callers and to backends. `native` is nghttp2: it takes the least CPU, and "
        "`make setup` builds it. `grpcio` is grpcio. `auto` is native where it is built, and else grpcio.",
    )


class BackendConfig(Section):
    """A running Triton."""

    name: str = Field(description="Name in logs, metrics and the snapshot.", min_length=1)
    grpc: Address = Field(description="HOST:PORT of its gRPC service.")
    resolve: Literal["one", "all"] = Field(
        default="one",
        description="`all`: every address of the host's name is a backend, NAME/ADDRESS; `one`: they are one backend, "
        "and gRPC connects to one of them.",
    )
    resolve_s: float = Field(
        default=RESOLVE_S, gt=0, description="Seconds between two look-ups of the name, with `resolve: all`."
    )
    tls: BackendTls | None = Field(default=None, description="TLS to the backend; none: plain text.")
    restricted_protocol: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="KEY: VALUE of Triton's `--grpc-restricted-protocol`, sent as `triton-grpc-protocol-KEY`.",
    )


def loopback(address: str) -> bool:
    """Whether HOST:PORT is reached from this machine alone."""
    host = split_address(address)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
