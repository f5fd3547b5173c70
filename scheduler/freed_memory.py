"""Memory that is free in the allocator, given back to the system.

What a flood takes, glibc keeps: each of its arenas gives back only what is free at its end, where something small
mostly is not, and the next flood may fill other arenas. So the process would creep up to several times its greatest
need.
"""

import asyncio
import ctypes
from typing import Final

# Some 20 ms for 200 MiB, in a thread that holds no lock of Python's, and a fraction of one where there is nothing.
EVERY_S: Final = 60.0


async def give_back(every_s: float = EVERY_S) -> None:
    """Give it back again and again, until cancelled; at once an end where the C library has no way to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(trim, 0)
