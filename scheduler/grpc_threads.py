"""gRPC's threads give way to the event loop, so that what comes meanwhile is taken at once and not one by one.

`grpc.aio` has one thread, the poller, which waits for what gRPC's core has done and wakes the loop for each piece of
it, and the core has a pool that reads and writes. Between equals the kernel lets whoever wakes go first: the loop
stands still for every piece, several times a request, and sees one arrival at a time.
"""

import contextlib
import os
import threading
from typing import Final

# Of 19. At 10 the kernel still lets the poller go first; the nicer, the later answers a process that shares its CPUs
# with busy ones of its own session.
NICENESS: Final = 15


def give_way() -> None:
    """Give all threads of this process but the calling one, the event loop's, a lesser share of the CPU.

    To be called when gRPC has started. Threads that its pool adds later are as nice as the one that starts them.
    """
    own = threading.get_native_id()
    niceness = os.getpriority(os.PRIO_PROCESS, own) + NICENESS
    for thread in map(int, os.listdir("/proc/self/task")):
        if thread != own:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.setpriority(os.PRIO_PROCESS, thread, niceness)
