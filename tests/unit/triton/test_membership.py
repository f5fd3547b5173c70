"""Which backends there are, by a resolver that the test controls and fake Tritons on several loopback addresses."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from scheduler.config import BackendConfig
from scheduler.core.backends.backend import BackendState
from scheduler.core.ticket import Ticket
from scheduler.triton.catalog import Catalog
from scheduler.triton.fake import FakeModel, FakeTriton
from scheduler.triton.membership import Membership, check, resolve, security_of
from scheduler.triton.pool import Call, Pool

SOON_S = 0.01
LONG_S = 30


class Names:
    """A name server; `addresses` is its answer, an error where it is one."""

    def __init__(self) -> None:
        self.addresses: Sequence[str] | Exception = ()
        self.asked: list[tuple[str, int]] = []
        self.waiting = asyncio.Condition()

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        async with self.waiting:
            self.waiting.notify_all()
        if isinstance(self.addresses, Exception):
            raise self.addresses
        return self.addresses

    async def until_asked(self, times: int) -> None:
        """Wait until so many further look-ups have begun."""
        most = len(self.asked) + times
        async with self.waiting:
            await asyncio.wait_for(self.waiting.wait_for(lambda: len(self.asked) >= most), LONG_S)


class Place:
    """A membership on a pool of its own, and what it reports."""

    def __init__(self, most: int = 8) -> None:
        self.names = Names()
        self.pool = Pool()
        self.removed: list[str] = []
        self.states: dict[str, BackendState] = {}
        self.catalog = Catalog(self.pool, self._report, lambda model: False)
        self.membership = Membership(self.pool, self.catalog, self._remove, most, self.names)

    def _report(self, state: BackendState) -> None:
        self.states[state.name] = state

    def _remove(self, name: str) -> None:
        # A replacement is there by then.
        self.removed.append(name)
        self.states.pop(name)
        self.catalog.forget(name)

    @property
    def ready(self) -> list[str]:
        return sorted(name for name, state in self.states.items() if state.ready)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_S):
            while not condition():  # noqa: ASYNC110 - the state that is watched has no event
                await asyncio.sleep(SOON_S)


@pytest.fixture
async def tritons() -> AsyncIterator[list[str]]:
    """The addresses of three fakes."""
    async with AsyncExitStack() as stack:
        addresses = []
        for _ in range(3):
            triton = FakeTriton((FakeModel("identity"),))
            addresses.append(await triton.start())
            stack.push_async_callback(triton.stop)
        yield addresses


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Place]]:
    places: list[Place] = []

    def build(**about: Any) -> Place:
        places.append(Place(**about))
        return places[-1]

    yield build
    for place in places:
        await place.membership.stop()
        await place.pool.close()


def named(**about: Any) -> BackendConfig:
    fields = {"name": "pool", "grpc": "triton.example:8001", "resolve": "all", "resolve_s": SOON_S}
    return BackendConfig.model_validate(fields | about)


def single(name: str, address: str) -> BackendConfig:
    return BackendConfig(name=name, grpc=address)


async def test_every_address_of_a_name_is_a_backend(make: Any, tritons: list[str]) -> None:
    place = make()
    place.names.addresses = tritons[:2]
    await place.membership.start([named()])
    assert place.names.asked[0] == ("triton.example", 8001)
    assert place.ready == sorted(f"pool/{address}" for address in tritons[:2])


async def test_addresses_come_and_go_with_the_answer(make: Any, tritons: list[str]) -> None:
    place = make()
    place.names.addresses = tritons[:2]
    await place.membership.start([named()])
    place.names.addresses = tritons[1:]
    await place.until(lambda: place.removed == [f"pool/{tritons[0]}"])
    assert place.ready == sorted(f"pool/{address}" for address in tritons[1:])
    assert sorted(place.pool.names()) == place.ready


async def test_when_all_change_the_new_ones_are_ready_before_the_old_ones_go(make: Any, tritons: list[str]) -> None:
    place = make()
    place.names.addresses = tritons[:1]
    await place.membership.start([named()])
    there_at_removal: list[list[str]] = []
    remove = place.membership._remove
    place.membership._remove = lambda name: (there_at_removal.append(place.ready), remove(name))
    place.names.addresses = tritons[2:]
    await place.until(lambda: place.removed == [f"pool/{tritons[0]}"])
    assert there_at_removal == [sorted([f"pool/{tritons[0]}", f"pool/{tritons[2]}"])]


@pytest.mark.parametrize("error", [OSError(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_a_name_server_that_fails_takes_no_backend_away_and_is_told_of_once(
    make: Any, tritons: list[str], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    place = make()
    place.names.addresses = tritons[:1]
    await place.membership.start([named()])
    place.names.addresses = error
    await place.names.until_asked(4)
    assert place.ready == [f"pool/{tritons[0]}"]
    told = [record.getMessage() for record in caplog.records if "cannot be looked up" in record.getMessage()]
    assert len(told) == 1
    assert "backends.pool: triton.example cannot be looked up, its backends stay as they are: " in told[0]


async def test_a_name_without_an_answer_at_the_start_is_looked_up_again(make: Any, tritons: list[str]) -> None:
    place = make()
    place.names.addresses = OSError(-2, "Name or service not known")
    await place.membership.start([named()])
    assert place.ready == []
    place.names.addresses = tritons[:1]
    await place.until(lambda: place.ready == [f"pool/{tritons[0]}"])


async def test_no_more_than_so_many_addresses_are_taken(
    make: Any, tritons: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    place = make(most=2)
    place.names.addresses = tritons
    await place.membership.start([named()])
    assert place.ready == sorted(f"pool/{address}" for address in tritons[:2])
    assert "backends.pool: triton.example has 3 addresses, 1 are left out" in caplog.text


async def test_a_reload_adds_removes_and_moves_backends(make: Any, tritons: list[str]) -> None:
    place = make()
    await place.membership.start([single("a", tritons[0]), single("b", tritons[1])])
    stub = place.pool.stub("b")
    place.membership.configure([single("b", tritons[2]), single("c", tritons[0])])
    await place.until(lambda: place.removed == ["a"] and place.ready == ["b", "c"])
    assert place.pool.stub("b") is not stub
    place.membership.configure([single("b", tritons[2]), single("c", tritons[0])])
    await place.membership._applying
    assert place.removed == ["a"]


async def test_a_reload_ends_the_look_ups_of_what_it_took_out(make: Any, tritons: list[str]) -> None:
    place = make()
    place.names.addresses = tritons[:2]
    await place.membership.start([named(), single("a", tritons[2])])
    place.membership.configure([single("a", tritons[2])])
    await place.until(lambda: place.ready == ["a"])
    assert place.membership._watches == {}
    assert sorted(place.removed) == sorted(f"pool/{address}" for address in tritons[:2])
    place.membership.configure([single("a", tritons[2]), named(resolve="one", grpc=tritons[0])])
    await place.until(lambda: place.ready == ["a", "pool"])


async def test_reloads_in_a_row_end_as_the_last_one(make: Any, tritons: list[str]) -> None:
    place = make()
    await place.membership.start([single("a", tritons[0])])
    for address in (tritons[1], tritons[2], tritons[0], tritons[1]):
        place.membership.configure([single(address, address)])
    await place.membership._applying
    assert place.ready == place.pool.names() == [tritons[1]]


async def test_what_is_in_flight_ends_where_it_is(make: Any) -> None:
    triton = FakeTriton((FakeModel("identity"),))
    address = await triton.start()
    place = make()
    await place.membership.start([single("a", address)])
    triton.hold()
    request = service_pb2.ModelInferRequest(model_name="identity")
    request.inputs.add(name="INPUT", datatype="INT64", shape=[1, 1])
    request.raw_input_contents.append(bytes(8))
    call = Call(request, Ticket(1, "interactive", "t", "identity"))
    running = asyncio.ensure_future(place.pool.run("a", [call], None, lambda: None))
    await triton.until(lambda each: len(each.in_flight) == 1)
    place.pool.retire("a")
    assert place.pool.names() == []
    assert len(place.pool._retired) == 1
    triton.release()
    (answer,) = await running
    assert answer.model_name == "identity"
    await place.until(lambda: not place.pool._retired and not place.pool._closing and not place.pool._in_flight)
    await triton.stop()


def test_files_for_tls_that_cannot_be_read_are_told_before_anything_changes(tmp_path: Path) -> None:
    entry = named(tls={"ca": str(tmp_path / "absent.pem")})
    with pytest.raises(OSError, match=r"backends.pool.tls: .*absent.pem"):
        check([single("a", "127.0.0.1:1"), entry])


def test_a_certificate_is_of_the_name_and_not_of_an_address() -> None:
    assert security_of(named(tls={}), "triton.example").server_name == "triton.example"
    assert security_of(named(tls={"server_name": "other"}), "triton.example").server_name == "other"
    assert security_of(named(tls={})).server_name is None


async def test_the_systems_resolver_gives_all_addresses_of_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (2, 1, 6, "", ("127.0.0.2", 8001)),
        (2, 1, 6, "", ("127.0.0.1", 8001)),
        (2, 1, 6, "", ("127.0.0.1", 8001)),
        (10, 1, 6, "", ("::1", 8001, 0, 0)),
    ]

    async def getaddrinfo(host: str, port: int, **about: Any) -> Any:
        assert (host, port) == ("triton.example", 8001)
        return found

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    assert await resolve("triton.example", 8001) == ["127.0.0.1:8001", "127.0.0.2:8001", "[::1]:8001"]
    monkeypatch.undo()
    assert await resolve("[::1]", 7) == ["[::1]:7"]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
