"""What a connection may hold and how it is looked after."""

from dataclasses import dataclass
from typing import Final

# Of one call, in bytes: what a peer may send before its handler has taken the message before. HTTP/2's own default is
# 64 KiB; the larger, the fewer round trips a message of megabytes takes.
STREAM_WINDOW: Final = 1024 * 1024
# Of all calls of a connection. It is given back as bytes come, so this is what may be on its way at a time.
CONNECTION_WINDOW: Final = 4 * 1024 * 1024
# A writer waits while more than this of its call's messages has not left.
UNSENT_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class ServerSizes:
    """Bounds of a server's connections.

    Attributes:
        message_bytes: of one message, at most, in either direction.
        metadata_bytes: of one call's header fields, at most.
        calls: open ones of a connection, at most.
        keepalive_s: seconds of silence after which a ping asks for a sign of life.
        ping_timeout_s: seconds for its answer.
        client_ping_s: a client that pings more often, three times without an answer to a call between, is cut.
        idle_s: seconds after which a connection without calls is told to end.
        age_s: seconds after which a connection is told to end, a tenth more or less by chance; None: never.
        grace_s: seconds that its calls have from then on; None: as long as they take.
        handshake_s: seconds in which a client has to have spoken TLS and HTTP/2.
    """

    message_bytes: int
    metadata_bytes: int
    calls: int
    keepalive_s: float
    ping_timeout_s: float
    client_ping_s: float
    idle_s: float
    age_s: float | None
    grace_s: float | None
    handshake_s: float
