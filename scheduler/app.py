"""The one place that builds the object graph, starts it in order and stops it in reverse."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from scheduler.config import Config, split_address
from scheduler.core.backends.backend import BackendState
from scheduler.core.scheduler import Scheduler
from scheduler.core.snapshot import Snapshot
from scheduler.cpus import TritonCpus
from scheduler.driver import Driver
from scheduler.edge.audit import Audit
from scheduler.edge.health import Health
from scheduler.edge.http import HttpSide
from scheduler.edge.server import EdgeServer
from scheduler.edge.service import InferenceService
from scheduler.errors import StartError
from scheduler.freed_memory import give_back
from scheduler.telemetry.hooks import NULL
from scheduler.telemetry.observatory import Observatory, recorder_of
from scheduler.triton.catalog import Catalog
from scheduler.triton.forwarded import ForwardedHeaders
from scheduler.triton.keeper import Keeper
from scheduler.triton.launcher import READY_TIMEOUT_S, EmbeddedTriton, TritonStartError
from scheduler.triton.membership import Membership, check
from scheduler.triton.pool import Call, Pool
from scheduler.wires import chosen

log = logging.getLogger(__name__)

# A client that watches gRPC health leaves within milliseconds of being told.
QUIET_S: Final = 0.1
# Those that do not watch find out when the port is closed.
LEAVE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running service listens, and its embedded Triton where it has one; each HOST:PORT."""

    grpc: str
    http: str
    triton: str | None


class App:
    """A Fairlane service within the running event loop. Make it in a coroutine.

    Args:
        config: everything that can be set.
        triton_cpus: the CPUs of the embedded Triton and its models; None: those of this process.
    """

    def __init__(self, config: Config, triton_cpus: TritonCpus | None = None) -> None:
        self._config = config
        self._triton_cpus = triton_cpus
        recorder = recorder_of(config)
        telemetry = NULL if recorder is None else recorder
        wires = chosen(config.listen.wire)
        self._pool = pool = Pool(telemetry, wires.connect)
        self._driver: Driver[Call, Any] = Driver(Scheduler(config.core_settings()), pool, telemetry)
        self._catalog = Catalog(pool, self._backend_changed, self._driver.offers)
        self._membership = Membership(pool, self._catalog, self._backend_removed, config.limits.backends_per_name)
        self._audit = Audit(config.audit_log)
        self._service = InferenceService(config, self._driver, self._catalog, pool, self._audit, telemetry)
        self._server = EdgeServer(config, self._service, wires.server(config.limits))
        self._listening = False
        self._observatory = (
            None
            if recorder is None
            else Observatory(config, recorder, self.snapshot, lambda: self.ready, self.unserved)
        )
        self._stack = contextlib.AsyncExitStack()

    @property
    def ready(self) -> bool:
        """Whether requests are accepted and a backend is there for them."""
        return self._listening and self._service.ready

    def snapshot(self) -> Snapshot:
        """The core's state."""
        return self._driver.snapshot()

    def unserved(self) -> dict[str, str]:
        """The models that a backend has and could not load, by name, and why."""
        return {name: about.why for name, about in self._catalog.unserved().items()}

    async def start(self) -> Addresses:
        """Start everything; where it fails, what had been started is stopped.

        Raises:
            StartError: an address is taken, or the embedded Triton does not start; with the reason.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._audit.close)
            http = await self._start_http(stack)
            stack.push_async_callback(self._pool.close)
            stack.push_async_callback(self._driver.close)
            triton = await self._start_backends(stack)
            await stack.enter_async_context(_background(self._catalog.watch()))
            await stack.enter_async_context(_background(give_back()))
            address = await self._start_grpc(stack)
            self._listening = True
            self._stack = stack.pop_all()
        return Addresses(address, http, triton)

    async def until_ready(self) -> None:
        """Wait until a backend is ready."""
        await self._catalog.until_ready()

    def reload(self, read: Callable[[], Config]) -> None:
        """Read the configuration again and go on with it, or with the old one where it cannot be used.

        Args:
            read: reads it; raises StartError.
        """
        try:
            new = read()
            errors = self._config.reload_errors(new)
            if errors:
                raise StartError("\n".join(errors))  # noqa: TRY301 - one way for all errors
            check(new.backends)
        except (StartError, OSError) as error:
            log.error("the configuration was not reloaded, the old settings stay: %s", error)  # noqa: TRY400
            self._audit.reload(f"refused: {error}")
            return
        settings = new.core_settings()
        self._driver.reconfigure(settings)
        if new.backends:
            self._membership.configure(new.backends)
        self._service.configure(new)
        if self._observatory is not None:
            self._observatory.configure(settings)
        self._config = new
        log.info("the configuration was reloaded")
        self._audit.reload("done")

    async def stop(self) -> bool:
        """Readiness off, accepted requests finished, everything stopped.

        Returns:
            False where requests were still there after `limits.drain_s` seconds.
        """
        self._service.draining = True
        self._server.readiness_changed()
        await self._service.close()
        drained = await self._driver.drain(self._config.limits.drain_s)
        await self._until_clients_left()
        # While the server still runs: what could not be finished gets an answer.
        await self._driver.close()
        await self._stack.aclose()
        return drained

    async def _until_clients_left(self) -> None:
        """Wait until no request came for QUIET_S: one that arrives as gRPC shuts down ends as CANCELLED, unread.

        Until then they are refused with a pushback; clients that watch gRPC health have left already.
        """
        last_seen = self._driver.last_ticket_id
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                while True:
                    await asyncio.sleep(QUIET_S)
                    if self._driver.last_ticket_id == last_seen:
                        return
                    last_seen = self._driver.last_ticket_id

    async def _start_http(self, stack: contextlib.AsyncExitStack) -> str:
        host, port = split_address(self._config.listen.http)
        if self._observatory is not None:
            await stack.enter_async_context(self._observatory.watching())
        health = Health(lambda: self.ready, self.unserved, self._service.may_monitor)
        side = HttpSide(health, self.snapshot, self._service.check_monitor, self._observatory)
        stack.push_async_callback(side.stop)
        try:
            return f"{host}:{await side.start(host.strip('[]'), port)}"
        except OSError as error:
            raise StartError(f"listen.http: {host}:{port}: {error.strerror or error}") from None

    async def _start_backends(self, stack: contextlib.AsyncExitStack) -> str | None:
        if not self._config.backends:
            about, strict = self._config.triton, self._config.strict_models
            triton = EmbeddedTriton(
                self._config.model_repository,
                cpus=self._triton_cpus,
                args=(*ForwardedHeaders(self._config.forward_headers).args, *about.args),
                ready_timeout_s=about.load_s if strict else READY_TIMEOUT_S,
            )
            keeper = Keeper(triton, self._pool, self._catalog, strict=strict, load_s=about.load_s)
            stack.push_async_callback(keeper.stop)
            try:
                return (await keeper.start()).grpc
            except TritonStartError as error:
                raise StartError(str(error)) from None
        stack.push_async_callback(self._membership.stop)
        try:
            await self._membership.start(self._config.backends)
        except OSError as error:
            raise StartError(str(error)) from None
        return None

    async def _start_grpc(self, stack: contextlib.AsyncExitStack) -> str:
        host, port = split_address(self._config.listen.grpc)
        stack.push_async_callback(self._server.stop)
        return f"{host}:{await self._server.start(host, port)}"

    def _backend_removed(self, name: str) -> None:
        self._driver.remove_backend(name)
        self._catalog.forget(name)
        self._server.readiness_changed()

    def _backend_changed(self, state: BackendState) -> None:
        self._driver.set_backend(state)
        self._server.readiness_changed()


@contextlib.asynccontextmanager
async def _background(coroutine: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
