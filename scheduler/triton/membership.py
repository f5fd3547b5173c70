"""Which backends there are: those of the configuration, and the addresses that a name has, looked up again and again.

What is wanted is compared with what is there, and the difference is made: what is new is connected and asked what it
serves before what is not wanted any more is let go, so that a change of all addresses leaves no moment without any.
What is let go gets nothing new, and its channel is closed when what is in flight there has ended.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from scheduler.config import BackendConfig, split_address
from scheduler.triton.catalog import Catalog
from scheduler.triton.pool import Pool
from scheduler.triton.security import BackendSecurity

log = logging.getLogger(__name__)

# HOST and port to the addresses, each HOST:PORT. Raises OSError where nobody knows.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
# Of a backend's name and the address that it stands for.
SEPARATOR: Final = "/"


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system's resolver knows them.

    Raises:
        OSError: the name has none, or nobody answers.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return sorted(
        {f"[{where[0]}]:{port}" if family == socket.AF_INET6 else f"{where[0]}:{port}" for family, *_, where in found}
    )


@dataclass(frozen=True, slots=True)
class _Member:
    """A backend that is wanted: where it is, and how it is spoken to."""

    address: str
    security: BackendSecurity


class Membership:
    """Keeps the pool's backends to what the configuration and the names say.

    Args:
        pool: the channels.
        catalog: what they serve.
        remove: lets a backend go everywhere but in the pool.
        most: backends that one name may become; further addresses are left out.
        resolver: looks names up.
    """

    def __init__(
        self, pool: Pool, catalog: Catalog, remove: Callable[[str], None], most: int, resolver: Resolver = resolve
    ) -> None:
        self._pool = pool
        self._catalog = catalog
        self._remove = remove
        self._most = most
        self._resolver = resolver
        self._entries: dict[str, BackendConfig] = {}
        # What each entry of the configuration stands for now, and what is connected.
        self._wanted: dict[str, dict[str, _Member]] = {}
        self._there: dict[str, _Member] = {}
        # Entries whose name is looked up again, and why the last look-up failed.
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self._applying: asyncio.Task[None] | None = None

    async def start(self, entries: Sequence[BackendConfig]) -> None:
        """Look all names up once, connect what is there, and go on looking.

        Raises:
            OSError: a file for TLS cannot be read.
        """
        check(entries)
        self._entries = {entry.name: entry for entry in entries}
        await asyncio.gather(*(self._look_up(entry) for entry in entries))
        await self._apply()
        self._watch()

    def configure(self, entries: Sequence[BackendConfig]) -> None:
        """Go on with these entries; what changes is changed soon. `check` has found them usable."""
        entries_by_name = {entry.name: entry for entry in entries}
        for name, entry in self._entries.items():
            if entries_by_name.get(name) != entry:
                self._failed.pop(name, None)
                if name not in entries_by_name:
                    self._wanted.pop(name, None)
                if (watch := self._watches.pop(name, None)) is not None:
                    watch.cancel()
        new = [entry for entry in entries if self._entries.get(entry.name) != entry]
        self._entries = entries_by_name
        self._applying = asyncio.ensure_future(self._go_on(new, self._applying))

    async def stop(self) -> None:
        """Stop looking."""
        tasks = [*self._watches.values(), *([self._applying] if self._applying is not None else [])]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _go_on(self, new: Sequence[BackendConfig], before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        await asyncio.gather(*(self._look_up(entry) for entry in new))
        await self._apply()
        self._watch()

    def _watch(self) -> None:
        for name, entry in self._entries.items():
            if entry.resolve == "all" and name not in self._watches:
                self._watches[name] = asyncio.ensure_future(self._keep_looking(entry))

    async def _keep_looking(self, entry: BackendConfig) -> None:
        while True:
            await asyncio.sleep(entry.resolve_s)
            before = self._wanted.get(entry.name)
            await self._look_up(entry)
            if self._wanted.get(entry.name) != before:
                await self._apply()

    async def _look_up(self, entry: BackendConfig) -> None:
        """Work out what the entry stands for; where nobody answers, for what it did."""
        if self._entries.get(entry.name) != entry:
            return  # reconfigured since
        if entry.resolve == "one":
            self._wanted[entry.name] = {entry.name: _Member(entry.grpc, security_of(entry))}
            return
        host, port = split_address(entry.grpc)
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            self._tell(entry, f"{host} cannot be looked up, its backends stay as they are: {why}")
            return
        left_out = len(addresses) - self._most
        self._tell(entry, f"{host} has {len(addresses)} addresses, {left_out} are left out" if left_out > 0 else "")
        if self._entries.get(entry.name) == entry:
            security = security_of(entry, host)
            self._wanted[entry.name] = {
                f"{entry.name}{SEPARATOR}{address}": _Member(address, security) for address in addresses[: self._most]
            }

    def _tell(self, entry: BackendConfig, why: str) -> None:
        """Once, not at every look-up."""
        if self._failed.get(entry.name, "") != why:
            self._failed[entry.name] = why
            if why:
                log.warning("backends.%s: %s", entry.name, why)

    async def _apply(self) -> None:
        """Connect what is wanted and not there, ask it what it serves, and let the others go."""
        async with self._changing:
            wanted = {name: member for members in self._wanted.values() for name, member in members.items()}
            new = [name for name, member in wanted.items() if self._there.get(name) != member]
            for name in new:
                self._connect(name, wanted[name])
            if new:
                await self._catalog.refresh()
                if not set(new) <= set(self._catalog.ready()):
                    await self._catalog.refresh()  # the first may have been under way before they were connected
            for name in [name for name in self._there if name not in wanted]:
                log.info("backend %s is let go", name)
                del self._there[name]
                self._remove(name)
                self._pool.retire(name)

    def _connect(self, name: str, member: _Member) -> None:
        try:
            self._pool.add(name, member.address, member.security)
        except OSError as error:
            log.error("backend %s: tls: %s", name, error)  # noqa: TRY400 - the reason is all that helps
            return
        if name in self._there:
            self._catalog.lost(name)  # what is there now is another server
        log.info("backend %s is at %s", name, member.address)
        self._there[name] = member


def check(entries: Sequence[BackendConfig]) -> None:
    """Raise OSError with the entry's name where a file for TLS cannot be read."""
    for entry in entries:
        try:
            security_of(entry).credentials()
        except OSError as error:
            raise OSError(f"backends.{entry.name}.tls: {error}") from error


def security_of(entry: BackendConfig, host: str | None = None) -> BackendSecurity:
    """How a backend is spoken to; `host` is the name that its certificate is of where the address is none."""
    secrets = {key: value.get_secret_value() for key, value in entry.restricted_protocol.items()}
    if entry.tls is None:
        return BackendSecurity(restricted_protocol=secrets)
    return BackendSecurity(
        tls=True,
        ca=entry.tls.ca,
        certificate=entry.tls.certificate,
        key=entry.tls.key,
        server_name=entry.tls.server_name or host,
        restricted_protocol=secrets,
    )
