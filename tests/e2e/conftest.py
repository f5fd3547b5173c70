"""Fixtures of the end-to-end tests."""

import time
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def poll_until() -> Callable[..., None]:
    """Poll a condition until it holds; AssertionError after `within_s` seconds."""

    def poll(condition: Callable[[], Any], *, within_s: float = 15.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not so within {within_s} s: {condition}"
            time.sleep(0.02)

    return poll
