"""Fixtures for every test.

    eventually      await eventually(condition): poll until it holds
    models          an empty ModelRepository in this test's own directory
    new_repository  the same for fixtures of a wider scope
    start_triton    start(repository, **options) -> RunningTriton: servers that end with the test
    triton_factory  the same for a session

Each test gets the mark of what it costs here, by its folder (tests/costs.py); no test is marked by hand.

Servers run on an event loop in a thread of their own, so plain and async tests of any loop can use them.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.costs import MARKS, cost_of
from tests.real_triton import ModelRepository, TritonFactory

# Only ever waited for where a test is about to fail; a machine under load takes many times as long as a quiet one.
PATIENCE_S = 90.0

TESTS = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks, and take SIGINT back.

    Started in the background of a script, SIGINT is ignored, and would be by every process that a test starts.
    """
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the test with what it costs."""
    folder = item.path.relative_to(TESTS).parts[0]
    item.add_marker(cost_of(folder, getattr(item, "fixturenames", ())))


@pytest.fixture
def wire() -> str:
    """What carries gRPC, as `listen.wire` names it; tests that run over several have a fixture of their own."""
    return "auto"


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """`await eventually(condition)`: poll until it holds; fails after PATIENCE_S, never passes on elapsed time."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - the state that is watched has no event
                await asyncio.sleep(0.001)

    return wait


@pytest.fixture
def models(tmp_path: Path) -> ModelRepository:
    """An empty model repository."""
    path = tmp_path / "model_repository"
    path.mkdir()
    return ModelRepository(path)


@pytest.fixture(scope="session")
def triton_factory() -> Iterator[TritonFactory]:
    """Start servers that live until the end of the session."""
    with contextlib.closing(TritonFactory()) as factory:
        yield factory


@pytest.fixture
def start_triton() -> Iterator[TritonFactory]:
    """Start servers that live until the end of the test."""
    with contextlib.closing(TritonFactory()) as factory:
        yield factory


@pytest.fixture(scope="session")
def new_repository(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], ModelRepository]:
    """Make empty model repositories for fixtures of a wider scope than a test."""
    return lambda: ModelRepository(tmp_path_factory.mktemp("model_repository"))
