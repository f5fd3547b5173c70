"""How a backend is spoken to: in plain text or TLS, and with the secret of Triton's restricted protocols."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

Option = tuple[str, Any]
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

    def channel(self, address: str, options: Sequence[Option]) -> grpc.aio.Channel:
        """Open a channel.

        Raises:
            OSError: a file cannot be read.
        """
        secrets = tuple((HEADER_PREFIX + key.lower(), value) for key, value in self.restricted_protocol.items())
        # Interceptors cost every call some time: only channels that need them have them.
        interceptors = (_UnarySecret(secrets), _StreamSecret(secrets)) if secrets else ()
        credentials = self.credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
        if self.server_name is not None:
            options = [*options, ("grpc.ssl_target_name_override", self.server_name)]
        return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What TLS needs, read anew; None: plain text.

        Raises:
            OSError: a file cannot be read.
        """
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))


PLAIN: Final = BackendSecurity()


class _UnarySecret(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the headers to calls with one response."""

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        self._headers = headers

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Go on with the headers added."""
        return await continuation(_with(client_call_details, self._headers), request)


class _StreamSecret(grpc.aio.StreamStreamClientInterceptor):
    """Adds the headers to streams."""

    def __init__(self, headers: tuple[tuple[str, str], ...]) -> None:
        self._headers = headers

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request_iterator: Any
    ) -> Any:
        """Go on with the headers added."""
        return await continuation(_with(client_call_details, self._headers), request_iterator)


def _with(details: grpc.aio.ClientCallDetails, headers: tuple[tuple[str, str], ...]) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(
        details.method,
        details.timeout,
        grpc.aio.Metadata(*(details.metadata or ()), *headers),
        details.credentials,
        details.wait_for_ready,
    )


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
