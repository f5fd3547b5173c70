"""How long the gRPC server waits for a peer, whatever carries its calls."""

from typing import Final

# A peer that does not answer a ping within this time has gone.
PING_TIMEOUT_S: Final = 20.0
# Clients may ping as often as stock clients can be told to; more often twice, and the connection is closed.
CLIENT_PING_S: Final = 5.0
# A TLS handshake takes milliseconds; one that takes longer is somebody who holds a socket.
HANDSHAKE_S: Final = 20.0
