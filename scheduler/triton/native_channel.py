"""A backend's channel on the native wire. Imported only where its extension is built."""

from scheduler.triton.channel import METADATA_BYTES, USER_AGENT
from scheduler.triton.security import BackendSecurity
from scheduler.wire._h2 import VERSION
from scheduler.wire.channel import Channel, Place


def native_channel(address: str, security: BackendSecurity) -> Channel:
    """Open a channel to HOST:PORT.

    Raises:
        OSError: a file for TLS cannot be read.
    """
    host, _, port = address.rpartition(":")
    place = Place(host.strip("[]"), int(port), security.context(), security.server_name, security.headers)
    return Channel(place, metadata_bytes=METADATA_BYTES, user_agent=f"{USER_AGENT} grpc-nghttp2/{VERSION}")
