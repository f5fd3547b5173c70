"""Bytes of memory a queued ticket takes, without its tensors (they are not in it)."""

import gc
import tracemalloc

from bench.micro.cost import Loaded


def bytes_per_ticket(queued: int, tenants: int) -> float:
    """What the allocator handed out for a core with so many queued tickets, the tickets themselves included.

    Ten tickets are queued before, so that the core's own structures do not count.
    """
    loaded = Loaded(10, tenants)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(queued):
            loaded.submit()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / queued
