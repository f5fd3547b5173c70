"""The edge's server on the native wire. Imported only where its extension is built."""

from scheduler.config import Limits
from scheduler.edge import patience
from scheduler.edge.certificates import Certificates
from scheduler.wire.server import Server
from scheduler.wire.sizes import ServerSizes


class NativeServer(Server):
    """Serves methods as generated code registers them; see edge/server.py's Wire.

    Args:
        limits: bounds on what a peer can make it hold.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            ServerSizes(
                message_bytes=limits.message_bytes,
                metadata_bytes=limits.metadata_bytes,
                calls=limits.calls_per_connection,
                keepalive_s=limits.keepalive_s,
                ping_timeout_s=patience.PING_TIMEOUT_S,
                client_ping_s=patience.CLIENT_PING_S,
                idle_s=limits.idle_s,
                age_s=limits.connection_age_s,
                grace_s=limits.connection_grace_s,
                handshake_s=patience.HANDSHAKE_S,
            )
        )

    async def listen(self, host: str, port: int, certificates: Certificates | None) -> int:
        """Listen, and return the port.

        Raises:
            OSError: the address cannot be bound.
        """
        return await self.bind(host.strip("[]"), port, None if certificates is None else certificates.context())
