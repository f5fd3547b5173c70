"""Triton alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.targets.target import Target
from scheduler.triton.launcher import EmbeddedTriton

# A flooded Triton never drains its queue: nothing is gained by waiting for it.
TRITON_GRACE_S: Final = 1.0


@asynccontextmanager
async def triton(model_repository: Path, *, log: Path) -> AsyncIterator[Target]:
    """Triton alone, on a model repository."""
    server = EmbeddedTriton(model_repository, log_path=log)
    try:
        address = await server.start()
        yield Target(grpc=address.grpc)
    finally:
        await server.stop(TRITON_GRACE_S)
