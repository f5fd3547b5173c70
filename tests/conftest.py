"""Fixtures for every test."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

PATIENCE_S = 30.0


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`await eventually(condition)`: poll until it holds; fails after PATIENCE_S, never passes on elapsed time."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - the state that is watched has no event
                await asyncio.sleep(0.001)

    return wait
