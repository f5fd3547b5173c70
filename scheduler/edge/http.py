"""The HTTP side: is it alive, is it ready, what is its state, and the live page.

Orchestrators may always ask whether it is alive and ready. All else tells of every tenant: where tenants have
credentials it is for those with `monitor` or `admin`, who send `Authorization: Bearer KEY`, or the key as a browser's
password.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import grpc
from aiohttp import BasicAuth, web

from scheduler.core.snapshot import Snapshot
from scheduler.edge.health import Health
from scheduler.errors import RequestError
from scheduler.telemetry.explain import explain, summarize
from scheduler.telemetry.live import SCHEMA, Live
from scheduler.telemetry.metrics import CONTENT_TYPE
from scheduler.telemetry.observatory import Observatory

PAGE: Final = Path(__file__).parent / "page"
ASSETS: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.svg": ("page.svg", "image/svg+xml"),
}
# The page needs nothing from elsewhere, and nothing that it shows can bring scripts along.
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# People with the page open; each costs the scheduler a message a second.
MAX_LISTENERS: Final = 32
MAX_TOP: Final = 200
MAX_NEWEST: Final = 200

OPEN: Final = frozenset({"/healthz", "/readyz"})
# A browser asks its user, and sends what it was told with everything that the page asks for.
CHALLENGE: Final = 'Basic realm="fairlane: any name, and an API key as the password", charset="UTF-8"'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# credentials, peer, what is asked for; raises RequestError.
CheckMonitor = Callable[[Mapping[str, str], str, str], None]


class HttpSide:
    """Health, metrics, state and the live page on one address.

    Args:
        health: what it says of itself to everybody.
        snapshot: the core's state.
        check_monitor: raises RequestError for a caller who may not see what is told of all tenants.
        observatory: what is measured; None where telemetry is off, and then only health and snapshot are served.
    """

    def __init__(
        self,
        health: Health,
        snapshot: Callable[[], Snapshot],
        check_monitor: CheckMonitor,
        observatory: Observatory | None = None,
    ) -> None:
        self._health = health
        self._snapshot = snapshot
        self._check_monitor = check_monitor
        self._observatory = observatory
        self._runner: web.AppRunner | None = None
        self._listeners: set[asyncio.Task[Any]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (the chosen one where `port` is 0).

        Raises:
            OSError: the address cannot be bound.
        """
        app = web.Application(middlewares=[_guard(self._check_monitor)])
        routes: dict[str, Handler] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/debug/snapshot": self._debug_snapshot,
        }
        if self._observatory is not None:
            routes |= _observed(self._observatory, self._listeners)
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
        app.on_response_prepare.append(_secure)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stop listening; those who listen to events are sent away."""
        for listener in self._listeners:
            listener.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        told = self._health.told(_credentials(request))
        return web.Response(status=200 if self._health.ready() else 503, text=told)

    async def _debug_snapshot(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"schema": SCHEMA} | asdict(self._snapshot()))


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.update(SECURITY_HEADERS)


def _guard(check_monitor: CheckMonitor) -> Any:
    """Middleware that lets only those who may see all tenants at what is not open to everybody."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN:
            try:
                check_monitor(_credentials(request), request.remote or "", f"{request.method} {request.path}")
            except RequestError as error:
                if error.code is grpc.StatusCode.PERMISSION_DENIED:
                    raise web.HTTPForbidden(text=f"{error}\n") from None
                raise web.HTTPUnauthorized(text=f"{error}\n", headers={"WWW-Authenticate": CHALLENGE}) from None
        return await handler(request)

    return guard


def _credentials(request: web.Request) -> dict[str, str]:
    """`authorization` as on the gRPC side; a browser's password is the key."""
    given = request.headers.get("Authorization")
    if given is None:
        return {}
    if given.lower().startswith("basic "):
        with contextlib.suppress(ValueError):
            given = f"Bearer {BasicAuth.decode(given, encoding='utf-8').password}"
    return {"authorization": given}


def _observed(observatory: Observatory, listeners: set[asyncio.Task[Any]]) -> dict[str, Handler]:
    """What there is to see while telemetry is on."""

    async def metrics(request: web.Request) -> web.Response:
        del request
        return web.Response(body=observatory.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def events(request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        if task is None or len(listeners) >= MAX_LISTENERS:
            return web.Response(status=503, text=f"{MAX_LISTENERS} listeners are there already\n")
        listeners.add(task)
        try:
            return await _stream(request, observatory.live)
        finally:
            listeners.discard(task)

    async def journeys(request: web.Request) -> web.Response:
        newest = observatory.recorder.journal.newest(_number(request, "newest", 50, MAX_NEWEST))
        return web.json_response({"schema": SCHEMA, "requests": [summarize(each) for each in newest]})

    async def journey(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        journal = observatory.recorder.journal
        found = journal.find(name)
        if found is None:
            error = f"no request {name!r} among the last {len(journal)} that ended (telemetry.requests)"
            return web.json_response({"error": error}, status=404)
        return web.json_response({"schema": SCHEMA} | explain(found, journal))

    routes: dict[str, Handler] = {path: _asset(*about) for path, about in ASSETS.items()}
    routes |= {"/metrics": metrics, "/events": events, "/debug/requests": journeys}
    return routes | {"/debug/requests/{name:.+}": journey}


def _asset(file: str, content_type: str) -> Handler:
    body = (PAGE / file).read_bytes()

    async def handler(request: web.Request) -> web.Response:
        del request
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return handler


async def _stream(request: web.Request, live: Live) -> web.StreamResponse:
    """Server-sent events: the plots' history once, then the state once a second."""
    match = request.query.get("match", "")[:128]
    top = _number(request, "top", 25, MAX_TOP)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    try:
        await response.write(_event("history", live.history()))
        await response.write(_event("state", live.state(match, top)))
        async for _ in live.samples():
            await response.write(_event("state", live.state(match, top)))
    except ConnectionResetError:
        pass  # the page was closed
    return response


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    value = request.query.get(name, str(default))
    if not value.isascii() or not value.isdigit():
        raise web.HTTPBadRequest(text=f"{name}: expected a number, got {value[:40]!r}\n")
    return min(int(value[:9]), most)
