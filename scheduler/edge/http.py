"""The HTTP side: is it alive, is it ready, and what is its state."""

from collections.abc import Callable
from dataclasses import asdict

from aiohttp import web

from scheduler.core.snapshot import Snapshot


class HttpSide:
    """`/healthz`, `/readyz` and `/debug/snapshot` on one address.

    Args:
        ready: whether inference is possible now.
        snapshot: the core's state; None while the service is starting.
    """

    def __init__(self, ready: Callable[[], bool], snapshot: Callable[[], Snapshot | None]) -> None:
        self._ready = ready
        self._snapshot = snapshot
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the chosen one where `port` is 0).

        Raises:
            OSError: the address cannot be bound.
        """
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/debug/snapshot", self._debug_snapshot),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        if self._ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready\n")

    async def _debug_snapshot(self, request: web.Request) -> web.Response:
        del request
        snapshot = self._snapshot()
        if snapshot is None:
            return web.json_response({"error": "starting"}, status=503)
        return web.json_response(asdict(snapshot))
