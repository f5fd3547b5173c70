"""gRPC's poller thread gives way to the event loop, so that what comes meanwhile is taken at once and not one by one.

`grpc.aio` has one thread of its own, which waits for what gRPC's core has done and wakes the loop for each piece of it.
Between equals the kernel lets whoever wakes go first: the loop stands still for every piece, several times a request,
and sees one arrival at a time.
"""

import os
import threading
from typing import Final

import grpc.aio

# Of 19. At 10 the kernel still lets the poller go first; at 19 a process that shares its CPUs with busy ones of its own
# session, which are not meant to be there, answers five times as late as at 15.
NICENESS: Final = 15


def give_way() -> None:
    """Start gRPC's poller with a lesser share of the CPU than the event loop; to be called before gRPC is used."""
    before = set(threading.enumerate())
    grpc.aio.init_grpc_aio()
    for thread in set(threading.enumerate()) - before:
        if thread.native_id is not None:
            os.setpriority(os.PRIO_PROCESS, thread.native_id, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
