"""Keeps the embedded Triton running: started at first, started again with backoff when it has died."""

import asyncio
import contextlib
import logging
from typing import Final

from scheduler.triton.catalog import Catalog
from scheduler.triton.launcher import EmbeddedTriton, TritonAddress, TritonStartError
from scheduler.triton.model_loads import ModelLoads
from scheduler.triton.pool import Pool

log = logging.getLogger(__name__)

BACKEND_NAME: Final = "embedded"
# A server that dies at once is not started more than about twice a minute.
FIRST_BACKOFF_S: Final = 0.5
LAST_BACKOFF_S: Final = 30.0
# Having run for so long, a server's next death starts from the first backoff again.
STABLE_S: Final = 60.0
# Models that are loaded one after the other are told of together; a look costs a call for each model that is served.
TELL_S: Final = 0.1
# Of the server's log, where the reason of a load that failed is looked for.
LOG_LINES: Final = 500


class Keeper:
    """The embedded Triton as a backend of the pool.

    Args:
        triton: the server.
        pool: where it is connected.
        catalog: which tells of its models.
        strict: whether a model that does not load fails the first start; later ones go on with the others.
        load_s: seconds that the first start waits for models that load slowly.
    """

    def __init__(self, triton: EmbeddedTriton, pool: Pool, catalog: Catalog, *, strict: bool, load_s: float) -> None:
        self._triton = triton
        self._pool = pool
        self._catalog = catalog
        self._strict = strict
        self._load_s = load_s
        self._loads = ModelLoads(triton.model_repository, lambda: triton.log_tail(LOG_LINES))
        catalog.loaded_by(BACKEND_NAME, self._loads.unserved)
        self._address: TritonAddress | None = None
        self._loading: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> TritonAddress:
        """Start Triton, connect it, load its models, and watch over it.

        Raises:
            TritonStartError: Triton did not become ready, with its own reasons.
        """
        await self._start_once(with_models=self._strict)
        self._tasks = [asyncio.create_task(each) for each in (self._watch(), self._tell())]
        if not self._strict:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._load_s):
                    await self._loads.done.wait()
        await self._refresh()
        assert self._address is not None
        return self._address

    async def stop(self) -> None:
        """Stop watching, and stop Triton."""
        await self._stop_loading()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Whoever stops has drained: nothing is in flight, and a polite end would take Triton seconds.
        await self._triton.stop(grace_s=0.0)

    async def _start_once(self, *, with_models: bool) -> None:
        address = await self._triton.start(with_models=with_models)
        await self._pool.connect(BACKEND_NAME, address.grpc)
        if not with_models:
            self._loading = asyncio.create_task(self._loads.run(self._pool.stub(BACKEND_NAME)))
        self._address = address
        await self._refresh()

    async def _refresh(self) -> None:
        await self._catalog.refresh(whole=True)
        if BACKEND_NAME not in self._catalog.ready():
            await self._catalog.refresh(whole=True)  # the first may have been under way before the connection was made

    async def _tell(self) -> None:
        """Have the catalogue look whenever a load has ended."""
        while True:
            await self._loads.changed.wait()
            self._loads.changed.clear()
            await self._catalog.refresh(whole=True)
            await asyncio.sleep(TELL_S)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            started = loop.time()
            code = await self._triton.wait()
            served = self._catalog.served_by(BACKEND_NAME)
            self._catalog.lost(BACKEND_NAME)
            await self._stop_loading()
            # Where a model may have ended it, the next server comes without that one sooner or later: no need to wait.
            if self._loads.server_ended(code, served) or loop.time() - started >= STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            backoff_s = await self._restart(code, backoff_s)

    async def _stop_loading(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
            self._loading = None

    async def _restart(self, code: int, backoff_s: float) -> float:
        """Start Triton again, trying until it is ready; returns the next backoff."""
        log.error("embedded Triton ended with %d; starting it again in %g s", code, backoff_s)
        while True:
            await asyncio.sleep(backoff_s)
            backoff_s = min(LAST_BACKOFF_S, backoff_s * 2)
            try:
                await self._start_once(with_models=False)
            except TritonStartError as error:
                log.error("embedded Triton does not start, next try in %g s: %s", backoff_s, error)  # noqa: TRY400
            else:
                assert self._address is not None
                log.info("embedded Triton is back at %s", self._address.grpc)
                return backoff_s
