"""What unit tests of several core files begin with."""

import pytest

from scheduler.core.class_queue import ClassQueue
from tests.unit.core.build import BACKGROUND


@pytest.fixture
def queue() -> ClassQueue:
    return ClassQueue("m", BACKGROUND, rank=1)
