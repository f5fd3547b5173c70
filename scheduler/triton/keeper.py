"""Keeps the embedded Triton running: started at first, started again with backoff when it has died."""

import asyncio
import logging
from typing import Final

from scheduler.triton.catalog import Catalog
from scheduler.triton.launcher import EmbeddedTriton, TritonAddress, TritonStartError
from scheduler.triton.pool import Pool

log = logging.getLogger(__name__)

BACKEND_NAME: Final = "embedded"
# A server that dies at once is not started more than about twice a minute.
FIRST_BACKOFF_S: Final = 0.5
LAST_BACKOFF_S: Final = 30.0
# Having run for so long, a server's next death starts from the first backoff again.
STABLE_S: Final = 60.0


class Keeper:
    """The embedded Triton as a backend of the pool."""

    def __init__(self, triton: EmbeddedTriton, pool: Pool, catalog: Catalog) -> None:
        self._triton = triton
        self._pool = pool
        self._catalog = catalog
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> TritonAddress:
        """Start Triton, connect it, and watch over it.

        Raises:
            TritonStartError: Triton did not become ready, with its own reasons.
        """
        address = await self._start_once()
        self._task = asyncio.create_task(self._watch())
        return address

    async def stop(self) -> None:
        """Stop watching, and stop Triton."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        # Whoever stops has drained: nothing is in flight, and a polite end would take Triton seconds.
        await self._triton.stop(grace_s=0.0)

    async def _start_once(self) -> TritonAddress:
        address = await self._triton.start()
        await self._pool.connect(BACKEND_NAME, address.grpc)
        await self._catalog.refresh()
        if BACKEND_NAME not in self._catalog.ready():
            await self._catalog.refresh()  # the first may have been under way before the connection was made
        return address

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            started = loop.time()
            code = await self._triton.wait()
            self._catalog.lost(BACKEND_NAME)
            if loop.time() - started >= STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            backoff_s = await self._restart(code, backoff_s)

    async def _restart(self, code: int, backoff_s: float) -> float:
        """Start Triton again, trying until it is ready; returns the next backoff."""
        log.error("embedded Triton ended with %d; starting it again in %g s", code, backoff_s)
        while True:
            await asyncio.sleep(backoff_s)
            backoff_s = min(LAST_BACKOFF_S, backoff_s * 2)
            try:
                address = await self._start_once()
            except TritonStartError as error:
                log.error("embedded Triton does not start, next try in %g s: %s", backoff_s, error)  # noqa: TRY400
            else:
                log.info("embedded Triton is back at %s", address.grpc)
                return backoff_s
