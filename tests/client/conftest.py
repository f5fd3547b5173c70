"""Both clients behind one face, so that every contract test runs over both."""

import asyncio
import inspect
import socket

import fairlane
import pytest
from fairlane.timing import AsyncTiming, Timing

from tests.client.fake_kserve import FakeKServe


class FakeTime:
    """A clock that moves only when a client sleeps; `waits_s` is how long it slept, `on_sleep` what happens then."""

    def __init__(self):
        self.now_s = 1000.0
        self.waits_s = []
        self.chance = 0.5  # no jitter on backoff
        self.on_sleep = lambda: None

    def sleep(self, wait_s):
        self.waits_s.append(wait_s)
        self.now_s += wait_s
        self.on_sleep()

    async def sleep_async(self, wait_s):
        await asyncio.sleep(0)
        self.sleep(wait_s)

    def timing(self, flavour):
        if flavour == "aio":
            return AsyncTiming(lambda: self.now_s, self.sleep_async, lambda: self.chance)
        return Timing(lambda: self.now_s, self.sleep, lambda: self.chance)


class Blocking:
    """Any client with its methods as plain calls: coroutines run to their end in `runner`."""

    def __init__(self, client, runner):
        self.client = client
        self._runner = runner

    def __getattr__(self, name):
        def call(*args, **kwargs):
            made = getattr(self.client, name)(*args, **kwargs)
            return self._runner.run(made) if inspect.iscoroutine(made) else made

        return call


@pytest.fixture
def server():
    with FakeKServe() as fake:
        yield fake


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture(params=["sync", "aio"])
def flavour(request):
    return request.param


@pytest.fixture
def connect(flavour, server, time):
    """Makes a client of either flavour on the fake server and the fake clock, and closes it."""
    made = []
    with asyncio.Runner() as runner:

        def make(address=None, **options):
            kind = fairlane.aio.Client if flavour == "aio" else fairlane.Client
            client = kind(address or server.address, timing=time.timing(flavour), **options)
            made.append(Blocking(client, runner))
            return made[-1]

        yield make
        for client in made:
            client.close()


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def silent_address():
    """An address nothing listens on, held so that only a gRPC server that asks for its port can take it meanwhile."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"
