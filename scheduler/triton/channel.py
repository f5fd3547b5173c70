"""What the pool uses of a backend's channel, whatever carries it: `grpc.aio`'s has it, and the native wire's."""

from typing import Final, Protocol

import grpc

from scheduler.triton.security import BackendSecurity
from scheduler.version import VERSION

USER_AGENT: Final = f"fairlane-server/{VERSION}"
# Headers and trailers of a backend's answer, at most. A model's error may be a long traceback; with gRPC's own 8 KiB it
# would be an error about its length.
METADATA_BYTES: Final = 1024 * 1024


class Channel(Protocol):
    """To one server. Names and meanings are those of `grpc.aio.Channel`; stubs use more of it."""

    def get_state(self) -> grpc.ChannelConnectivity:
        """Whether there is a connection."""

    async def close(self) -> None:
        """End it; calls that are open are cancelled."""


class Connect(Protocol):
    """Makes a channel."""

    def __call__(self, address: str, security: BackendSecurity) -> Channel:
        """A channel to HOST:PORT.

        Raises:
            OSError: a file for TLS cannot be read.
        """
