"""A connection's asyncio side, server and client alike: bytes from the transport in, what is to be sent out."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast
from urllib.parse import quote

from scheduler.wire._h2 import Connection, ConnectionBroken, Event

log = logging.getLogger(__name__)

# As many bytes at once: then the transport says whether it has enough. As _h2.pyx has it.
SEND_BYTES: Final = 256 * 1024
# A transport that is closed sends what it has; a peer that does not read it has so long.
CLOSING_S: Final = 5.0


class Outlet(asyncio.Protocol):
    """One connection.

    Attributes:
        loop: the running one.
        connection: HTTP/2 without I/O.
        message_bytes: of one message, at most.
        peer: the peer's address as gRPC writes it.
        auth_context: what the peer's verified certificate says, by gRPC's names.
        heard_at: when bytes came last, in the loop's seconds.
    """

    def __init__(self, connection: Connection, message_bytes: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = connection
        self.message_bytes = message_bytes
        self.peer = ""
        self.auth_context: Mapping[str, Iterable[bytes]] = {}
        self.heard_at = self.loop.time()
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._flush_due = False
        self._receiving = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self.peer = peer_of(transport.get_extra_info("peername"))
        self.auth_context = auth_context_of(transport.get_extra_info("peercert"))
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came, and send at once what HTTP/2 answers by itself."""
        self.heard_at = self.loop.time()
        self._receiving = True
        broken = False
        try:
            self.connection.receive(data)
        except ConnectionBroken as error:
            log.debug("connection of %s: %s", self.peer, error)
            broken = True
        finally:
            self._receiving = False
        self.dispatch(self.connection.events())
        if broken:
            self.cut()
        elif not self._flush_due:
            self._flush()

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is no more."""
        del error
        self._transport = None
        self.lost()

    # For calls.

    def soon(self) -> None:
        """Send at the end of this turn of the loop what is to be sent."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def taken(self, stream_id: int) -> None:
        """A message was taken by whom it is for: the peer may send more."""
        self.connection.taken(stream_id)
        self.soon()

    def cut(self) -> None:
        """End the connection now; `lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection when what is to be sent has left; `lost` follows."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.close()
            self.loop.call_later(CLOSING_S, transport.abort)

    # For what a server and a client make of it.

    def dispatch(self, events: list[Event]) -> None:
        """Hear what has happened."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection has ended: so has each of its calls."""
        raise NotImplementedError

    def _flush(self) -> None:
        self._flush_due = False
        transport = self._transport
        if self._paused or self._receiving or transport is None or transport.is_closing():
            return
        try:
            data = self.connection.send()
        except ConnectionBroken as error:
            log.debug("connection of %s: %s", self.peer, error)
            transport.abort()
            return
        if data:
            transport.write(data)
        events = self.connection.events()
        if events:
            self.dispatch(events)
        if len(data) >= SEND_BYTES:
            self.soon()
        elif self.connection.finished:
            self.close()


def peer_of(address: Any) -> str:
    """A socket's address as gRPC writes it."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"ipv6:{quote(f'[{host}]', safe=':')}:{port}" if ":" in host else f"ipv4:{host}:{port}"
    return f"unix:{address or ''}"


def auth_context_of(certificate: Mapping[str, Any] | None) -> Mapping[str, Iterable[bytes]]:
    """What a certificate, as `ssl` tells it, says of its holder, by gRPC's names."""
    if not certificate:
        return {}
    subject = [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]
    names = [value for _, value in certificate.get("subjectAltName", ())]
    return {
        "x509_common_name": [value.encode() for value in subject],
        "x509_subject_alternative_name": [value.encode() for value in names],
    }
