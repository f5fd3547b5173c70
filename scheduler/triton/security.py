"""How a backend is spoken to: in plain text or TLS, and with the secret of Triton's restricted protocols."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

# Triton's `--grpc-restricted-protocol=...:KEY=VALUE` expects the header with this prefix before KEY.
HEADER_PREFIX: Final = "triton-grpc-protocol-"


@dataclass(frozen=True, slots=True)
class BackendSecurity:
    """What a channel to a backend needs beyond the address.

    Attributes:
        tls: whether to speak TLS.
        ca: file of the authorities of the backend's certificate; None: the system's.
        certificate: file of the certificate chain to show; None: none.
        key: file of that certificate's private key.
        server_name: name expected in the backend's certificate; None: the address's.
        restricted_protocol: KEY to VALUE of Triton's restricted protocols; never printed.
    """

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    restricted_protocol: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """What each call has to tell of restricted protocols."""
        return tuple((HEADER_PREFIX + key.lower(), value) for key, value in self.restricted_protocol.items())

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What TLS needs, read anew; None: plain text.

        Raises:
            OSError: a file cannot be read.
        """
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))

    def context(self) -> ssl.SSLContext | None:
        """What TLS needs, for asyncio, read anew; None: plain text.

        Raises:
            OSError: a file cannot be read, or is none of its kind.
        """
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(["h2"])
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


PLAIN: Final = BackendSecurity()


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
