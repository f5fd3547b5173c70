"""Memory that was taken for a while goes back to the system."""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from scheduler.freed_memory import give_back
from tests.serving import resident_bytes

BLOCK_BYTES = 100_000  # less than what malloc asks the system for by itself
BLOCKS = 1000


async def test_memory_below_what_is_still_held_is_given_back(eventually: Callable[..., Any]) -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    blocks = [ctypes.c_void_p(libc.malloc(BLOCK_BYTES)) for _ in range(BLOCKS)]
    held = ctypes.c_void_p(libc.malloc(BLOCK_BYTES))
    for block in blocks:
        libc.memset(block, 1, BLOCK_BYTES)
    taken = resident_bytes(os.getpid())
    for block in blocks:
        libc.free(block)
    giving = asyncio.ensure_future(give_back(0.001))
    try:
        await eventually(lambda: resident_bytes(os.getpid()) < taken - BLOCKS * BLOCK_BYTES // 2)
    finally:
        giving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await giving
        libc.free(held)


async def test_c_library_without_a_way_to_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    await asyncio.wait_for(give_back(0), timeout=5)
