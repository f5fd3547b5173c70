"""A service at either wire."""

from collections.abc import AsyncIterator

import pytest

from tests.wire.serving import SERVING, Handlers


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture(params=SERVING)
async def address(request: pytest.FixtureRequest, handlers: Handlers) -> AsyncIterator[str]:
    async with SERVING[request.param](handlers) as address:
        yield address
