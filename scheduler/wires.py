"""What carries gRPC, in front and to the backends: grpcio, or the native wire where it can be used.

Both sides are always the same: native to the backends and grpcio in front makes batches smaller than either alone.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from scheduler.config import Limits
from scheduler.edge.grpcio_server import GrpcioServer
from scheduler.edge.server import Wire
from scheduler.errors import StartError
from scheduler.triton.channel import Connect
from scheduler.triton.grpcio_channel import grpcio_channel
from scheduler.wire import availability

log = logging.getLogger(__name__)


class Wires(NamedTuple):
    """Both sides.

    Attributes:
        server: makes the server that callers see.
        connect: makes a channel to a backend.
    """

    server: Callable[[Limits], Wire]
    connect: Connect


def chosen(wire: str) -> Wires:
    """By `listen.wire`: native, grpcio or auto.

    Raises:
        StartError: it is asked for, and cannot be used here.
    """
    if wire == "grpcio":
        log.info("gRPC runs on grpcio")
        return Wires(GrpcioServer, grpcio_channel)
    found = availability.look()
    if not found.usable:
        if wire == "native":
            raise StartError(f"listen.wire: native: {found.told}")
        log.warning("gRPC runs on grpcio, at several times the CPU: %s", found.told)
        return Wires(GrpcioServer, grpcio_channel)
    # Their extension may not be there.
    from scheduler.edge.native_server import NativeServer  # noqa: PLC0415
    from scheduler.triton.native_channel import native_channel  # noqa: PLC0415

    log.info("gRPC runs on %s", found.told)
    return Wires(NativeServer, native_channel)
