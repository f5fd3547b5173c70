"""The service's own TLS certificate, read again whenever its files have changed."""

import logging
import ssl
import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from scheduler.config import ServerTls
from scheduler.errors import StartError

log = logging.getLogger(__name__)

# What tells that a file is another one: inode, size, time of change.
Signature = tuple[tuple[int, int, int], ...]
# gRPC is HTTP/2; TLS's own negotiation says so.
PROTOCOLS: Final = ("h2",)


class Read(NamedTuple):
    """What was read: for asyncio, and for gRPC."""

    context: ssl.SSLContext
    configuration: Any


class Certificates:
    """Certificates for a gRPC server, which asks for them at every handshake; grpcio does so in a thread of its own.

    Args:
        tls: the files.

    Raises:
        StartError: a file cannot be read, or the key does not belong to the certificate.
    """

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._lock = threading.Lock()
        self._told = ""
        try:
            self._signature = self._look()
            self._last = self._read()
        except (OSError, ssl.SSLError) as error:
            raise StartError(f"listen.tls: {tls.certificate}, {tls.key}: {error}") from None

    def credentials(self) -> Any:
        """The server's credentials."""
        return grpc.dynamic_ssl_server_credentials(
            self._last.configuration, self._fetch, require_client_authentication=self._tls.client_ca is not None
        )

    def context(self) -> ssl.SSLContext:
        """One for asyncio's servers: a connection has the certificates of the time when it is made."""
        renewed = _Renewed(ssl.PROTOCOL_TLS_SERVER)
        renewed.certificates = self
        return renewed

    def current(self) -> ssl.SSLContext:
        """With the certificates as they are now."""
        self._fetch()
        return self._last.context

    def _fetch(self) -> Any:
        """The certificates for gRPC if they are others than before, None to go on with those."""
        with self._lock:
            try:
                signature = self._look()
                if signature == self._signature:
                    return None
                read = self._read()
            except (OSError, ssl.SSLError) as error:
                # Half-written files, or a key that comes a moment after its certificate: the old ones stay.
                self._tell(str(error))
                return None
            self._signature = signature
            self._last = read
            self._told = ""
        log.info("listen.tls: certificate read again from %s", self._tls.certificate)
        return read.configuration

    def _tell(self, why: str) -> None:
        """Once, not at every handshake."""
        if why != self._told:
            self._told = why
            log.warning("listen.tls: the changed certificate is not used yet: %s", why)

    def _files(self) -> list[Path]:
        files = [self._tls.certificate, self._tls.key]
        return files if self._tls.client_ca is None else [*files, self._tls.client_ca]

    def _look(self) -> Signature:
        stats = [path.stat() for path in self._files()]
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in stats)

    def _read(self) -> Read:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(PROTOCOLS)
        context.load_cert_chain(self._tls.certificate, self._tls.key)
        client_ca = None
        if self._tls.client_ca is not None:
            context.load_verify_locations(self._tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            client_ca = self._tls.client_ca.read_bytes()
        pair = (self._tls.key.read_bytes(), self._tls.certificate.read_bytes())
        return Read(context, grpc.ssl_server_certificate_configuration([pair], client_ca))


class _Renewed(ssl.SSLContext):
    """Stands for the context of the moment."""

    certificates: Certificates

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection; asyncio does it here."""
        return self.certificates.current().wrap_bio(*args, **options)
